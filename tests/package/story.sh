# The package from installing to purging, on a Debian with systemd, with calls that talk all the while. Each promise is a line
# `PACKAGE-TEST ok|FAILED NAME`; `PACKAGE-TEST saw` is for the record; the last line is `PACKAGE-TEST end`.
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
# Another process than this one runs.
active_but_for() { property_is ActiveState active && not property_is MainPID "$1"; }
filters() { ip -details link show outer0 | grep -q 'prog/xdp'; }
files() { find / -xdev -not -path '/out/*' -not -path '/var/log/journal/*' -not -path '/var/cache/*' | sort; }
config=/etc/sipfilter/sipfilter.toml
# A setting of the unit's, for a while.
override() {
	mkdir -p /run/systemd/system/sipfilterd.service.d
	printf '[Service]\n%b\n' "$1" >/run/systemd/system/sipfilterd.service.d/test.conf
	systemctl daemon-reload
}
override_nothing() {
	rm -r /run/systemd/system/sipfilterd.service.d
	systemctl daemon-reload
}

# So many calls from now on, until they are asked to end.
calls_begin() {
	rm -rf /tmp/desk
	mkdir /tmp/desk
	/out/calls --calls "$1" --first-port "$2" --outside /run/netns/provider --pbx 203.0.113.10 --provider 198.51.100.10 \
		--stranger 192.0.2.66 --desk /tmp/desk >/tmp/calls 2>&1 &
	talking=$!
}
# What has become of them since the last time; the words are for the record.
calls_are_whole() {
	: >"/tmp/desk/$1.ask"
	within 10 test -e "/tmp/desk/$1" || { cat /tmp/calls; return 1; }
	echo "PACKAGE-TEST saw $1: $(cat "/tmp/desk/$1")" >&3
	grep -q ^whole "/tmp/desk/$1"
}
calls_end() { calls_are_whole end && wait $talking; }
number_of_calls() { [ "$(sipfilterctl --json calls | grep -o '"call_id"' | wc -l)" -eq "$1" ]; }
exec 3>&1

# The host's link, and beyond it a provider and a stranger.
ip netns add provider
ip link add outer0 type veth peer name provider0 netns provider
ip address add 203.0.113.10/24 dev outer0
ip link set outer0 up
ip -n provider address add 203.0.113.1/24 dev provider0
for address in 198.51.100.10 192.0.2.66; do
	ip -n provider address add $address/32 dev provider0
done
ip -n provider link set provider0 up
ip route add default via 203.0.113.1

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
# Every command that there is, whoever added it.
for command in $(sipfilterctl --help | sed -n '/^Commands:/,/^$/s/^  \([a-z-]*\) .*/\1/p'); do
	[ "$command" = help ] || promise "it brings a page about $command" test -s "/usr/share/man/man1/sipfilterctl-$command.1.gz"
done

# Started as it comes.
promise 'without a configuration it does not start' not systemctl start sipfilterd
sleep 2
promise 'and is not tried again' property_is ActiveState failed
promise 'and says what is missing' sh -c 'journalctl --no-pager --unit sipfilterd | grep interfaces'

# A newcomer: the one file, edited as its head says. The # taken away, own values put there.
sed -i -e 's/^#interfaces = .*/interfaces = ["outer0"]/' -e 's/^#\[pbx\]/[pbx]/' -e 's/^#preset/preset/' \
	-e 's/^#\[\[trunk\]\]/[[trunk]]/' -e 's/^#provider = .*/provider = "lab"/' \
	-e '/^#\[\[provider\]\]/,$s/^#//' $config
grep -v -e '^#' -e '^$' $config
promise 'the file with its marks taken away is good' sipfilterctl check-config
promise 'it starts' systemctl enable --now sipfilterd
promise 'it filters' filters
promise 'systemctl says where' sh -c 'systemctl status --no-pager sipfilterd | grep "filtering on outer0"'
calls_begin 2 12000
promise 'a newcomer sees calls' within 5 number_of_calls 2
sleep 1
systemctl status --no-pager --lines 0 sipfilterd
sipfilterctl status
sipfilterctl calls
promise 'they can be heard, and no stranger' calls_end
promise 'they have ended' within 2 number_of_calls 0

# What it may do.
pid=$(property MainPID)
promise 'it runs as its user' test "$(stat -c %U /proc/$pid)" = sipfilter
# CAP_NET_ADMIN is 12, CAP_PERFMON 38, CAP_BPF 39.
promise 'it has three rights and no more' sh -c "grep -c '^Cap\(Prm\|Eff\|Bnd\|Amb\):.000000c000001000$' /proc/$pid/status | grep -x 4"
promise 'it is not real-time' sh -c "chrt --pid $pid | grep SCHED_OTHER"
promise 'root sees the counters' sipfilterctl stats
promise 'members of its group may ask it' setpriv --reuid nobody --regid sipfilter --clear-groups sipfilterctl status
promise 'others may not' not setpriv --reuid nobody --regid nogroup --clear-groups sipfilterctl status
prometheus() { bash -c "exec 3<>/dev/tcp/$1/9760 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3 && timeout 3 grep -q sipfilter_ <&3"; }
promise 'Prometheus on this host is answered' prometheus 127.0.0.1
promise 'it stops' systemctl stop sipfilterd
promise 'stopped, it filters nothing' not filters
rights='CAP_BPF CAP_NET_ADMIN CAP_PERFMON'
for right in $rights; do
	rest=$(echo "$rights" | sed "s/$right//")
	override "AmbientCapabilities=\nAmbientCapabilities=$rest\nCapabilityBoundingSet=\nCapabilityBoundingSet=$rest\nRestartForceExitStatus="
	promise "without $right it does not start" not systemctl start sipfilterd
	promise "and says that $right is missing" sh -c "journalctl --no-pager --unit sipfilterd --lines 5 | grep 'missing $right'"
done
without_family() {
	rest=$(echo 'AF_UNIX AF_NETLINK AF_INET' | sed "s/$1//")
	override "RestrictAddressFamilies=\nRestrictAddressFamilies=$rest\nRestartForceExitStatus=\nTimeoutStartSec=5s"
}
for family in AF_UNIX AF_NETLINK; do
	without_family $family
	promise "without $family it does not start" not systemctl start sipfilterd
done
without_family AF_INET
promise 'without AF_INET it starts' systemctl start sipfilterd
promise 'and Prometheus is not answered' not prometheus 127.0.0.1
override_nothing
systemctl reset-failed sipfilterd
promise 'with what the unit gives it starts' systemctl restart sipfilterd
promise 'and Prometheus is answered again' prometheus 127.0.0.1

# Trouble, with calls that talk through all of it.
calls_begin 20 10000
promise 'calls are in progress' within 5 number_of_calls 20
sleep 1
promise 'they talk' calls_are_whole quiet
pid=$(property MainPID)
systemctl kill --kill-whom=main --signal=KILL sipfilterd
promise 'killed, it comes back' within 10 active_but_for "$pid"
promise 'and filters' within 2 filters
promise 'killed, it cut no call' calls_are_whole killed
pid=$(property MainPID)
systemctl kill --kill-whom=main --signal=STOP sipfilterd
promise 'stuck, it is replaced' within 25 active_but_for "$pid"
promise 'and filters again' within 2 filters
promise 'stuck, it cut no call' calls_are_whole stuck
pid=$(property MainPID)
promise 'it restarts' systemctl restart sipfilterd
promise 'and filters after that' filters
promise 'restarted, it cut no call' calls_are_whole restarted

# Upgrade, with a configuration of one's own.
sha256sum $config >/tmp/config
pid=$(property MainPID)
promise 'dpkg upgrades it without a question' dpkg --install /out/new.deb
promise 'the configuration is the same' sha256sum --check /tmp/config
promise 'the new one runs' not property_is MainPID "$pid"
promise 'it is active after the upgrade' within 5 property_is ActiveState active
promise 'it filters after the upgrade' filters
promise 'it is still enabled' systemctl --quiet is-enabled sipfilterd
promise 'the upgrade cut no call' calls_are_whole upgraded

# Another configuration, and one with a mistake, without a restart.
sed -i '/^interfaces/a on_stop = "keep"' $config
pid=$(property MainPID)
promise 'it reloads' systemctl reload sipfilterd
promise 'and says what changed' sh -c 'journalctl --no-pager --unit sipfilterd --lines 20 | grep on_stop'
echo 'no_such_key = 1' >>$config
promise 'a reload of a wrong configuration fails' not systemctl reload sipfilterd
promise 'and says what is wrong' sh -c 'journalctl --no-pager --unit sipfilterd --lines 20 | grep no_such_key'
systemctl kill --kill-whom=main --signal=HUP sipfilterd
sleep 1
promise 'it is the same process, active' sh -c "systemctl --quiet is-active sipfilterd && [ \$(systemctl show -P MainPID sipfilterd) = $pid ]"
sed -i '/no_such_key/d' $config
promise 'reloads cut no call' calls_are_whole reloaded

# A mistake in the configuration: the service is down, the filter is not.
echo 'no_such_key = 1' >>$config
promise 'a wrong configuration is refused' not systemctl restart sipfilterd
sleep 3
promise 'and not tried again and again' property_is ActiveState failed
promise 'the filter stays meanwhile' filters
promise 'a wrong configuration cut no call' calls_are_whole mistaken
sed -i '/no_such_key/d' $config
promise 'corrected, it starts' systemctl restart sipfilterd
pid=$(property MainPID)
sleep 12
promise 'left alone, it stays' property_is MainPID "$pid"
promise 'all calls are known again when they end' calls_end
promise 'and have ended' within 2 number_of_calls 0

# Stopping, as it was told by the reload.
promise 'told to keep the filter, it stops' systemctl stop sipfilterd
promise 'and the filter is kept' filters
promise 'until it is taken off' sipfilterctl detach
promise 'which it is' not filters

# The end, for a filter that is kept as well.
systemctl start sipfilterd
promise 'dpkg removes it' dpkg --remove sipfilter
promise 'removed, it filters nothing' not filters
promise 'removed, it leaves no process' not pgrep sipfilterd
promise 'removed, it leaves nothing in the kernel' not test -e /sys/fs/bpf/sipfilter
promise 'the configuration stays' test -e $config
promise 'dpkg purges it' dpkg --purge sipfilter
promise 'the user is gone' not getent passwd sipfilter
promise 'the group is gone' not getent group sipfilter
systemctl daemon-reload
files >/tmp/after
promise 'nothing is left' sh -c "diff /tmp/before /tmp/after | grep '^>' | grep -v -e /var/lib/dpkg -e '/etc/.*-$' -e /var/log/ -e /var/lib/systemd; test \$? = 1"
echo 'PACKAGE-TEST end'
