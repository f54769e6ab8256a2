#!/usr/bin/env bash
# Tests the engine on 64-bit ARM: natively on such a machine, else built for it here and run in an emulator,
# on Debian and its like. As root it installs what is missing, else it says what that is.
#
# The idea: what the promise says of instruction sets is tried across machines. The same tests run, the same
# images are made by this machine's own program and by the emulated one, and every file is one by SHA-256.
# What an emulator cannot tell, the speed, is counted: the instructions of the kernels' inner loops, which
# must keep all in registers.
set -euo pipefail
cd "$(dirname "$0")/.."

case $(uname -m) in
    aarch64 | arm64) exec cargo test --release "$@" ;;
esac
target=aarch64-unknown-linux-gnu
start=$SECONDS
phase() { echo "== $1 ($((SECONDS - start)) s)"; }

# A compiler that has the target's standard library: the one in use, after `rustup target add`, or Debian's.
has_target() { ls "$("$1" --print target-libdir --target $target 2>/dev/null)"/libstd-*.rlib >/dev/null 2>&1; }
cargo=cargo rustc=rustc packages=()
if ! command -v rustc >/dev/null || ! has_target rustc; then
    cargo=/usr/bin/cargo rustc=/usr/bin/rustc
    # Debian's current Rust is called so where its own is older.
    web=$(apt-cache show rustc-web >/dev/null 2>&1 && echo -web || true)
    [ -x $rustc ] && [ -x $cargo ] && has_target $rustc ||
        packages+=("rustc$web" "cargo$web" "libstd-rust$web-dev:arm64")
fi
command -v aarch64-linux-gnu-gcc >/dev/null || packages+=(gcc-aarch64-linux-gnu)
[ -e /usr/aarch64-linux-gnu/lib/libc.a ] || packages+=(libc6-dev-arm64-cross)
command -v qemu-aarch64-static >/dev/null || packages+=(qemu-user-static)
if [ ${#packages[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
        echo "error: missing: ${packages[*]} (Debian's names; as root this script installs them; or, for Rust," \
            "rustup target add $target)" >&2
        exit 1
    fi
    phase "installing ${packages[*]}"
    dpkg --add-architecture arm64
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${packages[@]}" >/dev/null
fi
wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
found=$($rustc --version | cut -d' ' -f2)
if [ "$(printf '%s\n' "$wanted" "$found" | sort -V | head -n 1)" != "$wanted" ]; then
    echo "error: $rustc is $found, and $wanted is needed for $target" >&2
    exit 1
fi

# Linked statically: in the emulator a program that loads its libraries does not get past the start of a
# second thread.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
arm() { RUSTC=$rustc $cargo "$1" --quiet --release --target $target --target-dir target/aarch64 "${@:2}"; }

phase "building for $target with $($rustc --version), $cargo"
arm build --bin generate
arm test --no-run --lib --test parity

phase "instructions of the inner loops"
emulated=target/aarch64/$target/release/generate
aarch64-linux-gnu-objdump -d --no-show-raw-insn -C $emulated | awk -f tools/inner-loops.awk

phase "tests, emulated"
# Of the tests against the reference those that an emulator gets through: the others take minutes each.
arm test --lib
arm test --test parity -- logits_and_likelihoods given_the_reference_s_noise a_teacher_forced_cached_pass

phase "the same images as on $(uname -m)"
cargo build --quiet --release --bin generate
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
compared=0
# Makes images on both machines; the arguments are those of `generate`.
same() {
    target/release/generate "$@" -v "$out/native" >/dev/null
    for isa in neon portable; do
        FAST_PIXEL_CNN_ISA=$isa qemu-aarch64-static $emulated "$@" -v "$out/arm" >/dev/null
        local native arm
        native=$(sha256sum <"$out/native/samples.npy") arm=$(sha256sum <"$out/arm/samples.npy")
        if [ "$native" != "$arm" ]; then
            echo "error: $isa makes other images: generate $*" >&2
            exit 1
        fi
        compared=$((compared + 1))
    done
    echo "${native:0:16}  generate $*"
}
for model in tiny cond elu relu rect; do
    flags=(-c tests/golden/$model/v2/params.ckpt)
    case $model in elu | relu) flags+=(--nonlinearity $model) ;; esac
    same "${flags[@]}" -i 8 -n 2 -b 2 --threads 1
    same "${flags[@]}" -i 8 -n 2 -b 2 --threads 2
    same "${flags[@]}" -i 8 -n 2 -b 2 --threads 1 --precision bf16
    same "${flags[@]}" -i 4 -n 1 -b 1 --threads 1 --naive
done
# The upper rows of three digits, as far as there is ink.
same --class 3 -i 12x28 -n 3 -b 3 --threads 1
same --class 3 -i 12x28 -n 3 -b 3 --threads 1 --precision bf16
phase "done: the tests passed, and $compared pairs of samples.npy are the same"
