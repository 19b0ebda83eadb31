//! The benchmarks' own kernel programs (`tests/ebpf`), and loaded programs as things whose time can be taken.
//!
//! Where there is a choice, time is the thread's processor time: what other programs take of the machine meanwhile is not counted.

use std::{borrow::Cow, time::Duration};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, DevMap, MapData, ProgramArray},
    programs::{ProgramInfo, SchedClassifier, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use aya_obj::programs::xdp::XdpAttachType;
use rustix::time::{ClockId, clock_gettime};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench.bpf.o"));

/// As many as a NAPI poll takes: with more, a veth's ring of 256 may run over.
const BATCH: u32 = 64;

/// How packets differ; the same layout as in `tests/ebpf/src/kernel.rs`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Plan {
    /// The sequence's state; not zero.
    pub state: u32,
    /// 4 or 6.
    pub family: u32,
    /// Destination addresses minus one; a power of two minus one. They differ in the last bits.
    pub address_mask: u32,
    /// How many destination ports.
    pub ports: u32,
    /// The first of them.
    pub first_port: u32,
    /// Source addresses minus one; a power of two minus one.
    pub source_mask: u32,
    /// Where every other packet goes instead, on average; 0 for nowhere.
    pub other_port: u32,
}

// SAFETY: `repr(C)`, integers only, seven times four bytes: no padding.
unsafe impl aya::Pod for Plan {}

/// The loaded programs.
pub struct Programs {
    ebpf: Ebpf,
    plan: Array<MapData, Plan>,
    outlet: DevMap<MapData>,
    next: [ProgramArray<MapData>; 2],
}

impl Programs {
    /// Loads all of them.
    ///
    /// # Errors
    /// Without root's privileges.
    pub fn load() -> Result<Self> {
        let mut ebpf = EbpfLoader::new().load(OBJECT)?;
        for (name, program) in ebpf.programs_mut() {
            let loaded = match program {
                aya::programs::Program::SchedClassifier(program) => program.load(),
                program => <&mut Xdp>::try_from(program).and_then(Xdp::load),
            };
            loaded.with_context(|| format!("program {name}"))?;
        }
        let mut map = |name| {
            ebpf.take_map(name)
                .with_context(|| format!("no map {name}"))
        };
        Ok(Self {
            plan: map("PLAN")?.try_into()?,
            outlet: map("OUTLET")?.try_into()?,
            next: [map("NEXT")?.try_into()?, map("NEXT_FRAGS")?.try_into()?],
            ebpf,
        })
    }

    /// One of the XDP programs.
    ///
    /// # Errors
    /// Where there is none of that name.
    pub fn xdp(&mut self, name: &str) -> Result<&mut Xdp> {
        let program = self.ebpf.program_mut(name);
        Ok(program
            .with_context(|| format!("no program {name}"))?
            .try_into()?)
    }

    /// The TC program that does nothing.
    ///
    /// # Errors
    /// Where it is not in the object.
    pub fn leave(&mut self) -> Result<&mut SchedClassifier> {
        let program = self.ebpf.program_mut("leave");
        Ok(program.context("no program leave")?.try_into()?)
    }

    /// Sets how the next packets differ.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn plan(&mut self, plan: Plan) -> Result<()> {
        Ok(self.plan.set(0, plan, 0)?)
    }

    /// Sends packets that differ out of an interface, from the namespace of the calling thread: the processor time that it took,
    /// which is also that of whoever received them, because a veth pair delivers in the sender's turn.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn send(&mut self, plan: Plan, interface: u32, run: Run<'_>) -> Result<Duration> {
        self.plan(plan)?;
        self.outlet.set(0, interface, None, 0)?;
        let generate = self.xdp("generate")?;
        let start = processor_time();
        generate.test_run(TestRunOptions {
            data_in: Some(run.packet),
            repeat: run.repeat,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::default()
        })?;
        Ok(processor_time().saturating_sub(start))
    }

    /// Runs a program on packets that differ: the time per packet, including what making them differ takes.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn time_varied(&mut self, target: &Timed, plan: Plan, run: Run<'_>) -> Result<Sample> {
        let Timed::Xdp(next) = target else {
            anyhow::bail!("only XDP programs take packets that differ");
        };
        self.plan(plan)?;
        // The kernel says which of both kinds this one is.
        let direct = self.next[0].set(0, next.fd()?, 0);
        let name = match direct {
            Ok(()) => "vary",
            Err(_) => {
                self.next[1].set(0, next.fd()?, 0)?;
                "vary_frags"
            }
        };
        let vary = self.xdp(name)?;
        sample(run, |options| vary.test_run(options))
    }
}

/// A loaded program, ours or another's.
pub enum Timed {
    /// XDP.
    Xdp(Xdp),
    /// TC.
    Tc(SchedClassifier),
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    /// The packet.
    pub packet: &'a [u8],
    /// How often.
    pub repeat: u32,
    /// On which interface the packet came in, if it leaves now: 0 for none.
    pub arrived_on: u32,
}

/// What came of it.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Nanoseconds of the thread's processor time per packet, with its share of the system call's own.
    pub processor: f64,
    /// Nanoseconds per packet by the kernel's clock: whole ones, without the system call, but with what interrupted it.
    pub kernel: f64,
    /// The program's last return value.
    pub returned: u32,
}

impl Timed {
    /// A handle on a loaded XDP program, whoever loaded it.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn xdp(info: ProgramInfo) -> Result<Self> {
        let program =
            Xdp::from_program_info(info, Cow::Borrowed("timed"), XdpAttachType::Interface)?;
        Ok(Self::Xdp(program))
    }

    /// A handle on a loaded TC program.
    ///
    /// # Errors
    /// Where it is of another kind.
    pub fn tc(info: ProgramInfo) -> Result<Self> {
        let program = SchedClassifier::from_program_info(info, Cow::Borrowed("timed"))?;
        Ok(Self::Tc(program))
    }

    /// Runs the program on one packet.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn time(&self, run: Run<'_>) -> Result<Sample> {
        sample(run, |options| match self {
            Self::Xdp(program) => program.test_run(options),
            Self::Tc(program) => program.test_run(options),
        })
    }
}

fn sample(
    run: Run<'_>,
    test_run: impl Fn(TestRunOptions<'_>) -> Result<aya::TestRunResult, aya::programs::ProgramError>,
) -> Result<Sample> {
    // A `__sk_buff` up to its tenth number, `ingress_ifindex`; the kernel takes the rest for zero.
    let mut context = [0; 40];
    context[36..].copy_from_slice(&run.arrived_on.to_ne_bytes());
    let start = processor_time();
    let result = test_run(TestRunOptions {
        data_in: Some(run.packet),
        ctx_in: (run.arrived_on != 0).then_some(&context),
        repeat: run.repeat,
        ..TestRunOptions::default()
    })?;
    let spent = processor_time().saturating_sub(start);
    Ok(Sample {
        processor: spent.as_secs_f64() * 1e9 / f64::from(run.repeat),
        kernel: result.duration.as_nanos() as f64,
        returned: result.return_value,
    })
}

/// The calling thread's.
#[must_use]
pub fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or_default(),
    )
}
