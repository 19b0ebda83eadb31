# The package from installing to purging, on a Debian with systemd. Each promise is a line `PACKAGE-TEST ok|FAILED NAME`, the last line is
# `PACKAGE-TEST end`.
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
cd /

promise() {
	name=$1
	shift
	if "$@" </dev/null >/tmp/said 2>&1; then
		echo "PACKAGE-TEST ok $name"
	else
		echo "PACKAGE-TEST FAILED $name (status $?: $*)"
		sed 's/^/    /' /tmp/said
		journalctl --no-pager --unit sipfilterd --lines 6 | sed 's/^/    journal: /'
	fi
}
# Until it holds, or for so many seconds.
within() {
	seconds=$1
	shift
	for _ in $(seq $((seconds * 5))); do
		"$@" && return 0
		sleep 0.2
	done
	"$@"
}
not() { ! "$@"; }
property() { systemctl show --property "$1" --value sipfilterd; }
property_is() { [ "$(property "$1")" = "$2" ]; }
filters() { ip -details link show outer0 | grep -q 'prog/xdp'; }
files() { find / -xdev -not -path '/out/*' -not -path '/var/log/journal/*' -not -path '/var/cache/*' | sort; }

ip link add outer0 type veth peer name provider0
ip address add 203.0.113.10/24 dev outer0
ip link set outer0 up
ip link set provider0 up

files >/tmp/before

# Installing.
promise 'dpkg installs it without a question' dpkg --install /out/old.deb
promise 'the programs run' sh -ec 'sipfilterd --version; sipfilterctl --version'
promise 'the service has a user of its own' getent passwd sipfilter
promise 'it is not enabled' not systemctl --quiet is-enabled sipfilterd
promise 'it is not started' property_is ActiveState inactive
promise 'nothing is filtered' not filters
for file in /usr/share/man/man8/sipfilterd.8.gz /usr/share/man/man1/sipfilterctl.1.gz \
	/usr/share/man/man1/sipfilterctl-simulate.1.gz /usr/share/man/man5/sipfilter.toml.5.gz \
	/usr/share/bash-completion/completions/sipfilterctl /usr/share/zsh/vendor-completions/_sipfilterctl \
	/usr/share/fish/vendor_completions.d/sipfilterctl.fish /usr/share/sipfilter/providers/vapi-us.toml; do
	promise "it brings $file" test -s $file
done

# Started as it comes.
promise 'without a configuration it does not start' not systemctl start sipfilterd
sleep 2
promise 'and is not tried again' property_is ActiveState failed
promise 'and says what is missing' sh -c 'journalctl --no-pager --unit sipfilterd | grep interfaces'

# Configured as the file's head says: the # taken away, own values put there.
sed -i -e 's/^#interfaces = .*/interfaces = ["outer0"]/' -e 's/^#\[pbx\]/[pbx]/' -e 's/^#preset/preset/' \
	-e 's/^#\[\[trunk\]\]/[[trunk]]/' -e 's/^#provider = /provider = /' /etc/sipfilter/sipfilter.toml
promise 'the file with its marks taken away is good' sipfilterctl check-config
promise 'it starts' systemctl enable --now sipfilterd
promise 'it filters' filters
promise 'systemctl says where' sh -c 'systemctl status --no-pager sipfilterd | grep "filtering on outer0"'
systemctl status --no-pager sipfilterd
sipfilterctl status
pid=$(property MainPID)
promise 'it runs as its user' test "$(stat -c %U /proc/$pid)" = sipfilter
# CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
promise 'it has three rights and no more' sh -c "grep -c '^Cap\(Prm\|Eff\|Bnd\|Amb\):.000000c000001000$' /proc/$pid/status | grep -x 4"
promise 'it is not real-time' sh -c "chrt --pid $pid | grep SCHED_OTHER"
promise 'root sees the counters' sipfilterctl stats
promise 'members of its group may ask it' setpriv --reuid nobody --regid sipfilter --clear-groups sipfilterctl status
promise 'others may not' not setpriv --reuid nobody --regid nogroup --clear-groups sipfilterctl status

# Trouble.
systemctl kill --kill-whom=main --signal=KILL sipfilterd
promise 'killed, it comes back' within 10 sh -c "[ \$(systemctl show -P MainPID sipfilterd) -gt $pid ] && systemctl --quiet is-active sipfilterd"
promise 'and filters' within 2 filters
pid=$(property MainPID)
sleep 12
promise 'left alone, it stays' property_is MainPID "$pid"
systemctl kill --kill-whom=main --signal=STOP sipfilterd
promise 'stuck, it is replaced' within 25 sh -c "[ \$(systemctl show -P MainPID sipfilterd) -gt $pid ] && systemctl --quiet is-active sipfilterd"
promise 'and filters again' within 2 filters
promise 'it restarts' systemctl restart sipfilterd
promise 'and filters after that' filters

# Upgrade, with a configuration of one's own.
sha256sum /etc/sipfilter/sipfilter.toml >/tmp/config
pid=$(property MainPID)
promise 'dpkg upgrades it without a question' dpkg --install /out/new.deb
promise 'the configuration is the same' sha256sum --check /tmp/config
promise 'the new one runs' not property_is MainPID "$pid"
promise 'it is active after the upgrade' within 5 property_is ActiveState active
promise 'it filters after the upgrade' filters
promise 'it is still enabled' systemctl --quiet is-enabled sipfilterd

# A mistake in the configuration.
echo 'no_such_key = 1' >>/etc/sipfilter/sipfilter.toml
promise 'a wrong configuration is refused' not systemctl restart sipfilterd
sleep 3
promise 'and not tried again and again' property_is ActiveState failed
sed -i '/no_such_key/d' /etc/sipfilter/sipfilter.toml
promise 'corrected, it starts' systemctl restart sipfilterd

# The end.
promise 'it stops' systemctl stop sipfilterd
promise 'stopped, it filters nothing' not filters
systemctl start sipfilterd
promise 'dpkg removes it' dpkg --remove sipfilter
promise 'removed, it filters nothing' not filters
promise 'removed, it leaves nothing in the kernel' not test -e /sys/fs/bpf/sipfilter
promise 'the configuration stays' test -e /etc/sipfilter/sipfilter.toml
promise 'dpkg purges it' dpkg --purge sipfilter
promise 'the user is gone' not getent passwd sipfilter
systemctl daemon-reload
files >/tmp/after
promise 'nothing is left' sh -c "diff /tmp/before /tmp/after | grep '^>' | grep -v -e /var/lib/dpkg -e '/etc/.*-$' -e /var/log/ -e /var/lib/systemd; test \$? = 1"
echo 'PACKAGE-TEST end'
