#!/usr/bin/env bash
# Runs the tests of the CUDA engine: on the GPU where there is one, else on the virtual GPU (tools/vgpu).
# --real or --virtual forces one of them; other arguments go to `cargo test`.
#
# The idea: the engine loads libcuda.so.1 and does not know which one it gets.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=
case ${1:-} in
    --real | --virtual) kind=${1#--}; shift ;;
esac
if [ -z "$kind" ]; then
    if command -v nvidia-smi >/dev/null && nvidia-smi -L 2>/dev/null | grep -q '^GPU'; then kind=real; else kind=virtual; fi
fi

if [ "$kind" = virtual ]; then
    cargo build --release --quiet --package vgpu
    library=$PWD/target/vgpu
    mkdir -p "$library"
    cp -f target/release/libvgpu.so "$library/libcuda.so.1"
    export LD_LIBRARY_PATH=$library${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    echo "CUDA tests run on the virtual GPU (tools/vgpu): ${VGPU_DEVICE:-h100}"
else
    echo "CUDA tests run on $(nvidia-smi -L | head -n 1)"
fi

test=(cargo test --release --features cuda)
# Those that look at the kernels and at devices that fail, those that run small networks in many ways, and all others: two halves
# that take about as long.
kernels=(--lib --test cuda_ptx --test cuda_resources --test cuda_faults)
small=(--test cuda_conformance --test cuda_precision)
pixels=(--test cuda_pixels)
images=()
for file in tests/cuda*.rs; do
    name=$(basename "$file" .rs)
    [[ " ${kernels[*]} ${small[*]} ${pixels[*]} " == *" $name "* ]] || images+=(--test "$name")
done
run_images() {
    # Its networks are small. They leave most of a large device's multiprocessors nothing but to poll for what others make,
    # where the virtual GPU spends its time; of a few each has several tiles of a stage.
    VGPU_MULTIPROCESSORS=${VGPU_MULTIPROCESSORS:-6} "${test[@]}" "${small[@]}" "$@" &&
        # Two clusters, and something to run beside them.
        VGPU_MULTIPROCESSORS=40 "${test[@]}" "${pixels[@]}" "$@" &&
        "${test[@]}" "${images[@]}" "$@"
}

if [ "$kind" = real ]; then
    run_images "$@"
    "${test[@]}" "${kernels[@]}" "$@"
    exit
fi
# A test takes the virtual GPU for itself and is a thread or two: both halves at a time, each with its own.
"${test[@]}" "${kernels[@]}" "${small[@]}" "${pixels[@]}" "${images[@]}" --no-run
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"${test[@]}" "${kernels[@]}" "$@" >"$log" 2>&1 &
other=$!
status=0
run_images "$@" || status=$?
wait $other || status=$?
cat "$log"
exit $status
