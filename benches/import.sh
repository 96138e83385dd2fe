#!/usr/bin/env bash
# Importing against `nix-store --add` of the same trees, in turns, and the peak memory of both.
#
# Usage: benches/import.sh [runs]       needs: nix-store (Debian: nix-bin), python3, GNU time if memory is to be shown
# Prints the medians and the ratio; below 1 lazystore is faster. Both stores are emptied before each run.
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
    nix-store --store "$work/nix" --add "$1"
}
lazystore_import() {
    "$program" import --store-dir "$work/lazystore" "$1"
}
median() { sort -n | awk '{ all[NR] = $1 } END { print all[int((NR + 1) / 2)] }'; }
empty() {
    chmod -R u+w "$work/nix" 2>/dev/null || true
    rm -rf "$work/nix" "$work/lazystore"
    sync
}

for tree in small large; do
    cat "$work/$tree" >/dev/null 2>&1 || find "$work/$tree" -type f -exec cat {} + >/dev/null
    : >"$work/theirs" >"$work/ours"
    for _ in $(seq "$runs"); do
        empty
        milliseconds nix_add "$work/$tree" >>"$work/theirs"
        empty
        milliseconds lazystore_import "$work/$tree" >>"$work/ours"
    done
    theirs=$(median <"$work/theirs") ours=$(median <"$work/ours")
    memory=""
    if [ -x /usr/bin/time ]; then
        empty
        memory=$(/usr/bin/time -f ', peak %M KiB' "$program" import --store-dir "$work/lazystore" "$work/$tree" 2>&1 >/dev/null | tail -1)
    fi
    awk -v t="$theirs" -v o="$ours" -v n="$tree" -v m="$memory" 'BEGIN {
        printf "%s: nix-store --add %d ms, lazystore import %d ms, ratio %.2f%s\n", n, t, o, o / t, m }'
done
