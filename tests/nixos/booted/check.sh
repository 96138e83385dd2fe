# Runs in a machine that has booted: see booted.rs. What is as it should be is told by OK and a name; the first thing that is
# not ends it, with what the services said.
exec 2>&1
set -o pipefail
check() {
    local what=$1 said; shift
    if said=$("$@" 2>&1); then echo "OK $what"; else echo "FAILED $what: $said"; journalctl --no-pager -n 30 -o cat -u 'lazystore-*' -u nix-store.mount; exit 1; fi
}
soon() { for ((attempt = 0; attempt < 150; attempt++)); do "$@" > /dev/null 2>&1 && return; sleep 0.2; done; "$@"; }
property() { systemctl show --property "$2" --value "$1"; }
unit=lazystore-mount-team.service
mkdir /tmp/tree; head -c 300000 /dev/urandom > /tmp/tree/data
path=$(lazystore import --store team --progress never /tmp/tree); name=${path##*/}
same() { cmp "$1/$name/data" /tmp/tree/data; }

not_root() { [[ $(stat -c %u /proc/$(property lazystore-daemon.service MainPID)) -ge 61184 ]]; }
check dynamic-user not_root
check no-token bash -c "! lazystore ls --cache-dir none --store grpc+unix:///run/lazystore/daemon.sock $path"
check mount systemctl start $unit
check contents same /mnt/team
status() { property $unit StatusText | grep -q 'serving /mnt/team'; }
check status soon status

first=$(property $unit MainPID)
reload() { systemctl reload $unit && sleep 1 && [[ $(property $unit MainPID) == "$first" ]] && same /mnt/team; }
check reload reload
again() { [[ $(property $unit MainPID) != "$first" && $(property $unit ActiveState) == active ]] && same /mnt/team; }
check kill systemctl kill --kill-whom=all --signal=KILL $unit
check killed-comes-again soon again
first=$(property $unit MainPID)
check stop-process kill -STOP "$first"
check hung-comes-again soon again
check stop systemctl stop $unit
unmounted() { ! findmnt /mnt/team && stat /mnt/team; }
check nothing-left unmounted

check overlay systemctl start lazystore-mount-store.service
check overlay-contents soon same /nix/store
check overlay-local grep -q here /nix/store/local/file
write() { echo new > /nix/store/new && test -e /nix/.rw-store/store/new; }
check overlay-write write
first=$(property lazystore-mount-store.service MainPID)
check overlay-kill systemctl kill --kill-whom=all --signal=KILL lazystore-mount-store.service
remounted() { [[ $(property lazystore-mount-store.service MainPID) != "$first" ]] && same /nix/store && grep -q new /nix/store/new; }
check overlay-comes-again soon remounted

check plain systemctl start lazystore-mount@mnt-plain.service
check plain-contents same /mnt/plain
cache() { exec 3<>/dev/tcp/::1/8080; printf 'GET /nix-cache-info HTTP/1.0\r\n\r\n' >&3; grep -q StoreDir <&3; }
check binary-cache cache
check virtiofs systemctl start lazystore-virtiofs-guests.service

none() { ! systemctl list-units --failed --no-legend --plain | grep lazystore; }
check none-failed none
