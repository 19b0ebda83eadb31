//! Makes what leads to a difference smaller, part by part, as long as the difference stays.
//!
//! It does not ask whether it is the same difference: whichever is left is one.

use anyhow::Result;

use super::{Care, Difference, Machine, Scene};
use crate::policy::generate::Step;

/// Loads of the programs that a smaller case may cost.
const ATTEMPTS: usize = 400;

/// The smallest scene found with a difference, and that; `None` where it does not show again.
pub(super) fn shrink(scene: &Scene, found: &Difference) -> Result<Option<(Scene, Difference)>> {
    let mut scene = scene.clone();
    scene.steps.truncate(found.step + 1);
    let Some(difference) = try_scene(&scene)? else {
        return Ok(None);
    };
    let mut best = Best {
        scene,
        difference,
        attempts: 0,
    };
    best.cut_behind();
    best.shorten(|scene| &mut scene.steps)?;
    best.shorten(|scene| &mut scene.tables.pinholes)?;
    best.shorten(|scene| &mut scene.tables.slots)?;
    macro_rules! thin_out {
        ($($map:ident),*) => {$(
            for prefix in best.scene.policy.$map.keys().copied().collect::<Vec<_>>() {
                let mut smaller = best.scene.clone();
                smaller.policy.$map.remove(&prefix);
                best.try_instead(smaller)?;
            }
        )*};
    }
    thin_out!(providers, allowed, media);
    best.shorten_frame()?;
    best.shorten(|scene| &mut scene.steps)?;
    Ok(Some((best.scene, best.difference)))
}

struct Best {
    scene: Scene,
    difference: Difference,
    attempts: usize,
}

impl Best {
    fn cut_behind(&mut self) {
        self.scene.steps.truncate(self.difference.step + 1);
    }

    fn try_instead(&mut self, smaller: Scene) -> Result<bool> {
        self.attempts += 1;
        if self.attempts > ATTEMPTS {
            return Ok(false);
        }
        let Some(difference) = try_scene(&smaller)? else {
            return Ok(false);
        };
        self.scene = smaller;
        self.difference = difference;
        self.cut_behind();
        Ok(true)
    }

    /// Leaves out parts of a list, large ones first.
    fn shorten<T>(&mut self, list: fn(&mut Scene) -> &mut Vec<T>) -> Result<()> {
        let mut size = list(&mut self.scene).len();
        while size > 0 {
            let mut end = list(&mut self.scene).len();
            while end > 0 {
                let start = end.saturating_sub(size);
                let mut smaller = self.scene.clone();
                list(&mut smaller).drain(start..end);
                self.try_instead(smaller)?;
                end = start.min(list(&mut self.scene).len());
            }
            size /= 2;
        }
        Ok(())
    }

    /// Cuts the last packet's end off and sets its bytes to zero.
    fn shorten_frame(&mut self) -> Result<()> {
        let mut cut = 512;
        while cut > 0 {
            let mut smaller = self.scene.clone();
            let Some(Step::Packet(packet)) = smaller.steps.last_mut() else {
                return Ok(());
            };
            let length = packet.frame.len();
            let is_smaller = length > cut + 15;
            packet.frame.truncate(length - cut.min(length));
            if !is_smaller || !self.try_instead(smaller)? {
                cut /= 2;
            }
        }
        for place in 0..128 {
            let mut smaller = self.scene.clone();
            let Some(Step::Packet(packet)) = smaller.steps.last_mut() else {
                return Ok(());
            };
            match packet.frame.get_mut(place) {
                Some(byte) if *byte != 0 => *byte = 0,
                Some(_) => continue,
                None => break,
            }
            self.try_instead(smaller)?;
        }
        Ok(())
    }
}

fn try_scene(scene: &Scene) -> Result<Option<Difference>> {
    let mut machine = Machine::load(&scene.policy)?;
    Ok(machine
        .run(&scene.tables, &scene.steps, Care::Thorough)?
        .err())
}
