#!/usr/bin/env bash
# Everything that a first run on a GPU can tell, in one command and less than ten minutes: the tests, the times of every
# strategy and batch with the naive method beside them, the first start, compute-sanitizer and nsys where they are.
#
#   tools/gpu-report.sh [--out DIR]      builds and measures; writes DIR/gpu-report.json and .md [default: out]
#   tools/gpu-report.sh --pack DIR       builds, and puts what the report runs into DIR, for a machine without Rust:
#                                        there, `DIR/gpu-report.sh [--out DIR]` does the rest
#
# Without a GPU it says so and exits with 2. On the virtual GPU (LD_LIBRARY_PATH with tools/vgpu's libcuda.so.1) it runs too,
# with a tiny model, as a test of itself.
#
# The idea: the programs do the measuring and print tables and JSON; this script runs them one after the other, each
# within its time, and puts together what they say. What fails or takes too long is told, and the next one runs.
set -euo pipefail

say() { echo "gpu-report: $*" >&2; }
fail() { echo "error: $*" >&2; exit 2; }

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
pack= out=out
while [ $# -gt 0 ]; do
    case $1 in
        --pack | --out) [ $# -ge 2 ] || fail "$1: a directory is missing" ;;&
        --pack) pack=$2; shift 2 ;;
        --out) out=$2; shift 2 ;;
        *) fail "unknown argument $1: there are --out DIR and --pack DIR" ;;
    esac
done

# ---- what is run: built here, or packed before ---------------------------------------------------------------------

# The executables of the tests, by name, from what cargo says it built.
build() {
    say "building (minutes, the first time)"
    cargo build --release --features cuda >&2
    say "building the tests"
    local tests=(--lib --test cuda_engine --test cuda_wavenet --test cuda_precision --test cuda_pixels)
    executables=$(cargo test --release --features cuda --no-run --quiet --message-format=json-render-diagnostics "${tests[@]}" |
        sed -n 's/.*"name":"\(fast_pixel_cnn\|cuda_engine\|cuda_wavenet\|cuda_precision\|cuda_pixels\)".*"executable":"\([^"]*\)".*/\1 \2/p')
    [ -n "$executables" ] || fail "the tests could not be built: run cargo test --features cuda"
}

# The executable of a test: beside the programs where tests look for them, in bin/deps.
test_of() { sed -n "s|^$1 ||p" <<<"$executables"; }

# Says so at once where the loader would not find a driver.
need_driver() {
    local directory IFS=:
    for directory in ${LD_LIBRARY_PATH:-}; do [ ! -e "$directory/libcuda.so.1" ] || return 0; done
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null || true; } | grep -q 'libcuda\.so\.1' ||
        fail "there is no GPU: no libcuda.so.1 is installed, which comes with NVIDIA's driver"
}

if [ -d "$here/bin" ]; then
    [ -z "$pack" ] || fail "--pack: this is packed already"
    root=$here bin=$here/bin
    executables=$(cd "$bin/deps" && for file in *; do echo "$file $bin/deps/$file"; done)
    need_driver
    out=$(mkdir -p "$out" && cd "$out" && pwd)
else
    root=$(dirname "$here") bin=$root/target/release
    if [ -n "$pack" ]; then
        [ ! -e "$pack" ] || [ -d "$pack" -a -z "$(ls -A "$pack")" ] || fail "$pack: expected a new or empty directory"
        mkdir -p "$pack" && pack=$(cd "$pack" && pwd)
    else
        need_driver
        out=$(mkdir -p "$out" && cd "$out" && pwd)
    fi
    cd "$root"
    build
fi
cd "$root"

if [ -n "$pack" ]; then
    mkdir -p "$pack/bin/deps" "$pack/models" "$pack/tests/golden"
    for name in generate bench evaluate; do cp "$bin/$name" "$pack/bin/"; done
    while read -r name path; do cp "$path" "$pack/bin/deps/$name"; done <<<"$executables"
    strip "$pack"/bin/[a-z]* "$pack"/bin/deps/* 2>/dev/null || true
    cp -r models/digits models/spoken-digits "$pack/models/"
    cp -r tests/golden/{tiny,cond,elu,relu,rect,torch_rgb,torch_gray,spoken_digits,wavenet_*} "$pack/tests/golden/"
    # The same weights in forms that the engine's tests do not read.
    rm -rf "$pack"/tests/golden/*/{v1,v1_sharded,v2_sharded,legacy.pth,module_legacy.pth,wrapped_parametrized.pth}
    cp tools/gpu-report.sh "$pack/"
    git -C "$root" log -1 --format=%H >"$pack/commit" 2>/dev/null || echo unknown >"$pack/commit"
    megabytes=$(du -sm "$pack" | cut -f1)
    [ "$megabytes" -lt 100 ] || fail "$pack has $megabytes MB, which is more than the 100 that a report may take"
    echo "$pack has $megabytes MB: bring it to the machine with the GPU and run gpu-report.sh there"
    exit 0
fi

# ---- the steps -----------------------------------------------------------------------------------------------------

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
# Tests look for golden data below this.
export CARGO_MANIFEST_DIR=$root

tiny=$root/tests/golden/tiny/v2/params.ckpt
probe() { timeout 60 "$bin/generate" --device cuda -c "$tiny" -i 4 -n 1 -v "$logs/probe" "$@"; }
probe --json >"$logs/probe.json" 2>"$logs/probe.err" || fail "there is no GPU that can be used: $(sed -n 's/^error: //p' "$logs/probe.err")"
device=$(grep -o '"device": *"[^"]*"' "$logs/probe.json" | cut -d'"' -f4)
say "$device"

virtual=
grep -q vgpu <<<"$device" && virtual=1
if [ -n "$virtual" ]; then
    # It tells no times, and takes a thousand times as long: a small device, at least.
    export VGPU_MULTIPROCESSORS=${VGPU_MULTIPROCESSORS:-4}
    model=(-c "$tiny") batches="1" passes=1 limit=30
else
    model=() batches="1 2 4 8 16 32 64 128 256" passes=3 limit=60
fi

# Clusters came with compute capability 9.0. What else is wrong with them is to be in the report.
strategies="launch graph persistent team"
if probe --strategy cluster >/dev/null 2>"$logs/probe.err" || ! grep -qE "no clusters|no cluster of 16 blocks" "$logs/probe.err"; then
    strategies+=" cluster"
else
    say "no clusters: $(sed -n 's/^error: //p' "$logs/probe.err")"
fi

# Seconds that a step may take: what it is given, within the ten minutes of all, of which a long build may take four.
start=$((SECONDS < 240 ? 0 : SECONDS - 240))
left() {
    local rest=$((570 - SECONDS + start))
    echo $(($1 < rest ? $1 : rest > 1 ? rest : 1))
}

# Runs a step and notes how it ended and how long it took: step NAME SECONDS COMMAND...
results=()
step() {
    local name=$1 most code=0 begin=$SECONDS result
    most=$(left "$2")
    shift 2
    timeout "$most" "$@" >"$logs/$name.out" 2>"$logs/$name.err" </dev/null || code=$?
    case $code in
        0) result=passed ;;
        124) result="not done in $most s" ;;
        *) result="failed with $code" ;;
    esac
    results+=("$name|$result|$((SECONDS - begin))")
    say "$name: $result ($((SECONDS - begin)) s)"
    return 0
}
ended() { for r in "${results[@]}"; do if [ "${r%%|*}" = "$1" ]; then cut -d'|' -f2 <<<"$r"; fi; done; }

# Tests of the kernels; on a GPU they take seconds. The virtual one has them in its own script.
if [ -z "$virtual" ]; then
    step test-kernels 120 "$(test_of fast_pixel_cnn)" cuda:: --test-threads=1
    step test-engine 120 "$(test_of cuda_engine)" --test-threads=1
    step test-sounds 60 "$(test_of cuda_wavenet)" --test-threads=1
    step test-precision 60 "$(test_of cuda_precision)" --test-threads=1
    step test-pixels 120 "$(test_of cuda_pixels)" --test-threads=1
else
    step test-kernels 120 "$(test_of fast_pixel_cnn)" cuda::libcuda cuda::kernels cuda::stage
    step test-engine 120 "$(test_of cuda_engine)" logits_and_likelihoods
    step test-sounds 60 "$(test_of cuda_wavenet)"
    step test-precision 60 "$(test_of cuda_precision)" logits_are_near sounds_are
    step test-pixels 60 "$(test_of cuda_pixels)" sounds_are
fi

# A first start compiles the kernels; the driver keeps the result for the next one.
first_starts=()
for strategy in $strategies; do
    seconds=()
    for cache in "CUDA_CACHE_DISABLE=1" "CUDA_CACHE_DISABLE=0" "CUDA_CACHE_DISABLE=0"; do
        begin=$(date +%s.%N)
        timeout 60 env "$cache" "$bin/generate" --device cuda -c "$tiny" -i 4 -n 1 --strategy $strategy -v "$logs/probe" >/dev/null 2>&1 || true
        seconds+=("$(date +"%s.%N $begin" | awk '{ printf "%.2f", $1 - $2 }')")
    done
    first_starts+=("$strategy ${seconds[0]} ${seconds[2]}")
    say "start with $strategy: ${seconds[0]} s, then ${seconds[2]} s"
done

# One image whatever the strategy: the demo model's digits.
sums=()
for strategy in $strategies; do
    what=(-c models/digits -n 16 -b 16)
    [ -z "$virtual" ] || what=(-c "$tiny" -n 1 -i 8)
    step "samples-$strategy" 60 "$bin/generate" --device cuda --strategy $strategy "${what[@]}" -v "$logs/$strategy"
    sum=none
    [ ! -s "$logs/$strategy/samples.npy" ] || sum=$(sha256sum <"$logs/$strategy/samples.npy" | cut -c1-16)
    sums+=("$strategy $sum")
done

# What was predicted for this device, before it is measured.
step predicted 30 "$bin/bench" --device cuda --explain --batch-sizes "${batches// /,}" "${model[@]}"

# Times. The naive method is the same whatever the strategy: it is timed in full beside the first.
for strategy in persistent ${strategies/persistent/}; do
    for batch in $batches; do
        step "bench-$strategy-$batch" $limit "$bin/bench" --device cuda --strategy $strategy --batch-sizes "$batch" \
            --naive-passes $passes "${model[@]}" --json "$logs/bench-$strategy-$batch.json"
    done
    passes=1
done
step bench-bf16 $limit "$bin/bench" --device cuda --precision bf16 --batch-sizes "${batches// /,}" --naive-passes 1 "${model[@]}" \
    --json "$logs/bench-bf16.json"

# Sounds, of which a sample takes a thousandth of an image's time: what a virtual one tells of an image is enough.
if [ -z "$virtual" ]; then
    for strategy in $strategies; do
        step "sounds-$strategy" $limit "$bin/bench" --device cuda --strategy $strategy --model wavenet --batch-sizes 1,16,64 \
            --naive-passes 1 --json "$logs/sounds-$strategy.json"
    done
fi

if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        for strategy in ${strategies/graph/}; do
            step "sanitizer-$tool-$strategy" 40 compute-sanitizer --tool $tool --error-exitcode 9 \
                "$bin/generate" --device cuda --strategy $strategy -c "$tiny" -i 8 -n 2 -v "$logs/probe"
        done
        # Sounds, of which a launch of teams makes many samples.
        step "sanitizer-$tool-sounds" 40 compute-sanitizer --tool $tool --error-exitcode 9 \
            "$bin/generate" --device cuda --strategy team -c models/spoken-digits --class 3 --seconds 0.01 -v "$logs/probe"
    done
fi
if command -v nsys >/dev/null; then
    step nsys-profile 60 nsys profile --trace cuda --cuda-graph-trace=node --capture-range cudaProfilerApi --force-overwrite true \
        --output "$logs/rows" "$bin/bench" --device cuda --strategy graph --batch-sizes 1 --profile-rows 8..12 "${model[@]}"
    step nsys-kernels 60 nsys stats --report cuda_gpu_kern_sum --format csv "$logs/rows.nsys-rep"
fi

# ---- the report ----------------------------------------------------------------------------------------------------

# A text as a JSON string.
json() {
    local text=${1//\\/\\\\}
    text=${text//\"/\\\"}
    text=${text//$'\n'/\\n}
    printf '"%s"' "${text//[[:cntrl:]]/ }"
}
# The items, with commas between them.
joined() { local IFS=,; echo "$*"; }

system=$( (nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm,clocks.max.mem,power.limit \
    --format=csv 2>/dev/null || true) | tail -n 1)
commit=$(cat commit 2>/dev/null || git log -1 --format=%H 2>/dev/null || echo unknown)
when=$(date -u +%Y-%m-%dT%H:%M:%SZ)

tests_say() { grep -h '^test result' "$logs/$1.out" 2>/dev/null | tail -n 1 || true; }
items=() benches=() starts=() images=()
for r in "${results[@]}"; do
    IFS='|' read -r name result seconds <<<"$r"
    items+=("{\"step\": $(json "$name"), \"result\": $(json "$result"), \"seconds\": $seconds}")
    [ -s "$logs/$name.json" ] && benches+=("{\"step\": $(json "$name"), \"bench\": $(cat "$logs/$name.json")}")
done
for f in "${first_starts[@]}"; do
    read -r strategy first then <<<"$f"
    starts+=("{\"strategy\": \"$strategy\", \"first_seconds\": $first, \"then_seconds\": $then}")
done
for s in "${sums[@]}"; do images+=("\"${s% *}\": \"${s#* }\""); done
{
    echo "{\"schema\": \"fast-pixel-cnn/gpu-report-1\", \"commit\": $(json "$commit"), \"date\": \"$when\","
    echo "\"device\": $(json "$device"), \"nvidia_smi\": $(json "$system"), \"virtual\": $([ -n "$virtual" ] && echo true || echo false),"
    echo "\"steps\": [$(joined "${items[@]}")],"
    echo "\"tests\": [$(json "$(tests_say test-kernels)"), $(json "$(tests_say test-engine)"), $(json "$(tests_say test-sounds)"),"
    echo "$(json "$(tests_say test-precision)"), $(json "$(tests_say test-pixels)")],"
    echo "\"starts\": [$(joined "${starts[@]}")], \"samples_sha256\": {$(joined "${images[@]}")},"
    echo "\"benches\": [$(joined ${benches[@]+"${benches[@]}"})],"
    echo "\"kernels_csv\": $(json "$(cat "$logs/nsys-kernels.out" 2>/dev/null)")}"
} >"$logs/report.json"

# The lines of a table that a step printed, without its head.
rows() { grep '^|' "$logs/$1.out" 2>/dev/null | tail -n +3 || true; }
{
    echo "# $device"
    echo
    echo "Made by \`tools/gpu-report.sh\` on $when, commit ${commit:0:12}."
    [ -z "$virtual" ] || echo "The device is virtual: this report is a test of the script, and its times mean nothing."
    [ -z "$system" ] || { echo; echo "nvidia-smi (name, driver, capability, memory, clocks, power): $system"; }
    echo
    echo "## Times by strategy and batch"
    for strategy in persistent ${strategies/persistent/}; do
        head=
        for batch in $batches; do
            step=bench-$strategy-$batch
            if [ -z "$head" ] && grep -q '^|' "$logs/$step.out"; then
                head=1
                echo; echo "**$strategy.** $(grep -h '^Bounds' "$logs/$step.out" || true)"; echo
                grep '^|' "$logs/$step.out" | head -n 2
            fi
            rows "$step"
        done
        for batch in $batches; do
            result=$(ended "bench-$strategy-$batch")
            [ "$result" = passed ] || { echo; echo "$strategy, batch $batch: $result."; }
        done
    done
    if [ -z "$virtual" ]; then
        echo; echo "## Sounds, the default WaveNet"
        for strategy in $strategies; do
            echo; echo "**$strategy.**"; echo
            grep '^|' "$logs/sounds-$strategy.out" || echo "$(ended "sounds-$strategy")."
        done
    fi
    echo; echo "**auto, weights in bfloat16.**"; echo
    grep '^|' "$logs/bench-bf16.out" || echo "$(ended bench-bf16)."
    echo
    echo "## What was predicted (\`bench --explain\`)"
    echo
    cat "$logs/predicted.out"
    echo
    echo "## First start, with the kernels compiled by the driver, and the next ones"
    echo
    echo "| strategy | first s | then s |"
    echo "| --- | ---: | ---: |"
    for f in "${first_starts[@]}"; do read -r strategy first then <<<"$f"; echo "| $strategy | $first | $then |"; done
    echo
    echo "## Samples by strategy (SHA-256 of samples.npy, must be equal)"
    echo
    for s in "${sums[@]}"; do echo "- ${s% *}: \`${s#* }\`"; done
    echo
    echo "## Steps"
    echo
    echo "| step | result | s |"
    echo "| --- | --- | ---: |"
    for r in "${results[@]}"; do IFS='|' read -r name result seconds <<<"$r"; echo "| $name | $result $(tests_say "$name" | sed 's/test result: //') | $seconds |"; done
    for r in "${results[@]}"; do
        IFS='|' read -r name result seconds <<<"$r"
        [ "$result" = passed ] && continue
        echo; echo "### $name: $result"; echo
        cat "$logs/$name.out" "$logs/$name.err" | tail -n 30 | cut -c1-300 | sed 's/^/    /'
    done
    [ ! -s "$logs/nsys-kernels.out" ] || { echo; echo "## Kernels (nsys, rows 8 to 11 of one image, graph)"; echo; sed 's/^/    /' "$logs/nsys-kernels.out"; }
} >"$logs/report.md"
mv "$logs/report.json" "$out/gpu-report.json"
mv "$logs/report.md" "$out/gpu-report.md"
echo "$out/gpu-report.md"
echo "$out/gpu-report.json"
for s in "${sums[@]}"; do [ "${s#* }" = "${sums[0]#* }" ] || { say "the strategies' images differ"; exit 1; }; done
for r in "${results[@]}"; do [[ $r != *"failed with"* ]] || { say "${r%%|*} failed: see the report"; exit 1; }; done
