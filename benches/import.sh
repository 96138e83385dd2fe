#!/usr/bin/env bash
# Importing against `nix-store --add` of the same trees, in turns, and the peak memory of both.
#
# Usage: benches/import.sh [runs]       needs: nix-store (Debian: nix-bin), python3, GNU time if memory is to be shown
# Prints the medians and the ratio; below 1 lazystore is faster. Each run has a new store, and nothing is removed before the end: ext4
# creates files several times slower for minutes after many were deleted. `nix-store --add` does not bring data to the disk,
# lazystore does; so the time that a plain copy and a sync take, the physical limit, is printed too.
set -euo pipefail
cd "$(dirname "$0")/.."
runs=${1:-5}
cargo build --release --quiet
program=$PWD/target/release/lazystore
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

python3 - "$work" <<'PYTHON'
import os, random, sys
work = sys.argv[1]
random.seed(1)
small = os.path.join(work, "small")
for number in range(20_000):
    folder = os.path.join(small, str(number % 40), str(number % 23))
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, str(number)), "wb") as file:
        file.write(random.randbytes(random.randrange(100, 14_600)))
with open(os.path.join(work, "large"), "wb") as file:
    for _ in range(640):
        file.write(random.randbytes(1 << 20))
PYTHON

milliseconds() {
    local start end
    start=$(date +%s%N)
    "$@" >/dev/null
    end=$(date +%s%N)
    echo $(((end - start) / 1000000))
}
nix_add() {
    nix-store --store "$work/nix-$2" --add "$1"
}
lazystore_import() {
    "$program" import --store-dir "$work/lazystore-$2" "$1"
}
copy_and_sync() {
    cp -r "$1" "$work/copy-$2" && sync -f "$work"
}
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
round=0
timed() {
    round=$((round + 1))
    sync -f "$work"
    milliseconds "$1" "$2" "$round"
}

for tree in small large; do
    cat "$work/$tree" >/dev/null 2>&1 || find "$work/$tree" -type f -exec cat {} + >/dev/null
    : >"$work/theirs" >"$work/ours" >"$work/limit"
    for _ in $(seq "$runs"); do
        timed nix_add "$work/$tree" >>"$work/theirs"
        round=$((round + 1))
        timed lazystore_import "$work/$tree" >>"$work/ours"
        round=$((round + 1))
        timed copy_and_sync "$work/$tree" >>"$work/limit"
        round=$((round + 1))
    done
    theirs=$(median <"$work/theirs") ours=$(median <"$work/ours") limit=$(median <"$work/limit")
    memory=""
    if [ -x /usr/bin/time ]; then
        memory=$(/usr/bin/time -f ', peak %M KiB' "$program" import --store-dir "$work/lazystore-$tree" \
            "$work/$tree" 2>&1 >/dev/null | tail -1)
    fi
    awk -v t="$theirs" -v o="$ours" -v l="$limit" -v n="$tree" -v m="$memory" 'BEGIN {
        printf "%s: nix-store --add %d ms, lazystore import %d ms, copy and sync %d ms; ", n, t, o, l
        printf "ratio to nix %.2f, to the copy %.2f%s\n", o / t, o / l, m }'
done
