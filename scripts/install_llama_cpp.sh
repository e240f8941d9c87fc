#!/bin/sh
# Installs llama-cpp-python, trimmed to what parlm uses, into the environment of one interpreter.
#
#   scripts/install_llama_cpp.sh PYTHON        e.g. scripts/install_llama_cpp.sh .venv/bin/python
#
# The project publishes sources only, so the first run compiles it (llama_cpp_build.cmake says what
# is left out). The wheel is kept in ${PARLM_CACHE:-${XDG_CACHE_HOME:-~/.cache}/parlm}/wheels, and
# every later environment on this machine is installed from there in seconds.
#
#   CMAKE_ARGS                  appended to ours: -DGGML_CUDA=on builds for NVIDIA GPUs;
#                               -DGGML_NATIVE=off for other CPUs than this one, e.g. in an image
#   CMAKE_BUILD_PARALLEL_LEVEL  compile jobs at a time (default: the number of cores)
#   CC, CXX, CFLAGS, CXXFLAGS   as usual
set -eu

# Pinned exactly: parlm calls the low-level ctypes bindings, which mirror llama.cpp's C structs and
# change with it from release to release without notice; the package has one maintainer; and
# engines/ is tested against this version only. pyproject.toml (extra `llama_cpp`) names the same.
LLAMA_CPP_PYTHON_VERSION=0.3.36

say() { printf '%s\n' "llama-cpp-python: $*"; }
die() { printf '%s\n' "llama-cpp-python: $*" >&2; exit 1; }

case "${1:-}" in
    -h | --help) awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; exit 0 ;;
esac
[ $# -eq 1 ] || die "usage: $0 PYTHON (the interpreter to install for)"
PYTHON=$1
command -v "$PYTHON" >/dev/null 2>&1 || die "$PYTHON is not an executable interpreter"

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
cmake_file=$here/llama_cpp_build.cmake
[ -f "$cmake_file" ] || die "missing $cmake_file"
export LLAMA_CPP_PYTHON_VERSION cmake_file

# The version that imports now; nothing if none does (a library built for another CPU dies here).
imported() {
    "$PYTHON" -c 'import llama_cpp; print(llama_cpp.__version__)' 2>/dev/null || true
}

# What a built wheel depends on: -march=native ties it to this CPU, the linked libraries to this
# system, and the rest is what the build was told.
key=$("$PYTHON" - <<'PY'
import hashlib, os, platform, re, subprocess, sys, sysconfig

def cpu():
    if sys.platform == "darwin":
        names = ("machdep.cpu.brand_string", "machdep.cpu.features", "machdep.cpu.leaf7_features")
        return [subprocess.run(["sysctl", "-n", n], capture_output=True, text=True).stdout for n in names]
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
            lines = {line.split(":", 1)[0].strip().lower(): line.split(":", 1)[1] for line in f if ":" in line}
    except OSError:
        lines = {}
    return sorted((lines.get("flags") or lines.get("features") or platform.processor()).split())

with open(os.environ["cmake_file"], "rb") as f:
    recipe = hashlib.sha256(f.read()).hexdigest()
told = {n: os.environ.get(n, "") for n in ("CMAKE_ARGS", "CC", "CXX", "CFLAGS", "CXXFLAGS", "LDFLAGS")}
portable = re.search(r"-DGGML_NATIVE(:BOOL)?=(OFF|0|NO|FALSE)\b", told["CMAKE_ARGS"], re.IGNORECASE)
parts = [None if portable else cpu(), platform.libc_ver(), recipe, sorted(told.items())]
digest = hashlib.sha256(repr(parts).encode()).hexdigest()[:12]
tag = f"cp{sys.version_info[0]}{sys.version_info[1]}"
print("-".join([os.environ["LLAMA_CPP_PYTHON_VERSION"], tag, sysconfig.get_platform(), digest]))
PY
) || die "$PYTHON does not run"

# Which build this environment has, so that a new CMAKE_ARGS is not mistaken for "already there".
stamp=$("$PYTHON" -c 'import sys; print(sys.prefix)')/.parlm-llama-cpp
built=$(cat "$stamp" 2>/dev/null || true)
if [ "$(imported)" = "$LLAMA_CPP_PYTHON_VERSION" ]; then
    if [ -z "${CMAKE_ARGS:-}" ] || [ "$built" = "$key" ]; then
        say "$LLAMA_CPP_PYTHON_VERSION is already installed, nothing to do"
        exit 0
    fi
    say "$LLAMA_CPP_PYTHON_VERSION is installed, but not built with CMAKE_ARGS=$CMAKE_ARGS"
fi

"$PYTHON" -m pip --version >/dev/null 2>&1 ||
    die "no pip in this environment; add it with: $PYTHON -m ensurepip"

cache=${PARLM_CACHE:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/parlm}
wheels=$cache/wheels
find_wheel() {
    for f in "$wheels/$key"/*.whl; do
        if [ -f "$f" ]; then printf '%s\n' "$f"; fi
        return 0
    done
}

need_compiler() {
    die "$1
  Compiling llama.cpp needs a C and a C++ compiler (C++17). Install one, then run this again:
    Debian, Ubuntu:  sudo apt-get install build-essential
    Fedora:          sudo dnf install gcc-c++
    macOS:           xcode-select --install"
}

# First of the given commands that exists.
first_of() {
    for c in "$@"; do
        if command -v "$c" >/dev/null 2>&1; then printf '%s\n' "$c"; return 0; fi
    done
    return 0
}

scratch=
cleanup() { if [ -n "$scratch" ]; then rm -rf -- "$scratch"; fi; }
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Compiles the wheel into a scratch directory of the cache, then moves it to its place in one step,
# so that an interrupted or a second, simultaneous run never leaves half a wheel there.
build_wheel() {
    cc=${CC:-$(first_of cc gcc clang)}
    cxx=${CXX:-$(first_of c++ g++ clang++)}
    if [ -z "$cc" ] || [ -z "$cxx" ]; then need_compiler "no C and C++ compiler found."; fi

    mkdir -p "$wheels/$key" 2>/dev/null || die "cannot write to $wheels (set PARLM_CACHE to another directory)"
    scratch=$(mktemp -d "$wheels/.build.XXXXXX") || die "cannot write to $wheels (set PARLM_CACHE)"
    # Not only that it exists: on macOS, c++ is there before the developer tools are.
    printf '#include <vector>\nint main() { return (int) std::vector<int>().size(); }\n' >"$scratch/try.cpp"
    # shellcheck disable=SC2086 # CXX may carry arguments ("ccache g++")
    $cxx -std=c++17 "$scratch/try.cpp" -o "$scratch/try" >"$scratch/try.log" 2>&1 ||
        need_compiler "$cxx cannot compile a C++17 program: $(head -n 2 "$scratch/try.log")"

    log=$wheels/$key.log
    say "compiling $LLAMA_CPP_PYTHON_VERSION with $cxx, once for this machine (about 3 minutes of CPU time)"
    say "log: $log"
    if ! scratch=$scratch log=$log "$PYTHON" - <<'PY'
import os, re, shlex, shutil, signal, subprocess, sys, tempfile, time

version, scratch, log = (os.environ[n] for n in ("LLAMA_CPP_PYTHON_VERSION", "scratch", "log"))
env = dict(os.environ)
if not env.get("CMAKE_BUILD_PARALLEL_LEVEL"):
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:
        cores = os.cpu_count() or 1
    env["CMAKE_BUILD_PARALLEL_LEVEL"] = str(cores)
work = tempfile.mkdtemp(prefix="parlm-llama-cpp-")
recipe = shutil.copy(os.environ["cmake_file"], work)
# The user's own arguments come last: the last definition of a name wins.
ours = ["-DLLAVA_BUILD=OFF", "-DGGML_NATIVE=ON", f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={recipe}"]
env["CMAKE_ARGS"] = " ".join([*map(shlex.quote, ours), env.get("CMAKE_ARGS", "")]).strip()
env["TMPDIR"] = work
command = [
    sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--disable-pip-version-check",
    # pip's own wheel cache ignores CMAKE_ARGS and would hand back a differently built wheel.
    "--no-cache-dir", "--no-binary", "llama-cpp-python",
    # Headers, CMake files and a second copy of every library, for linking C++ programs against.
    "--config-settings=wheel.exclude=lib/**;lib64/**;include/**;bin/**",
    "--wheel-dir", scratch, f"llama-cpp-python=={version}",
]
start = said = time.monotonic()
status, progress, phase = 1, "", "downloading (77 MB)"
try:
    with open(log, "wb") as out, open(log, "rb") as tail:
        build = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=out,
                                 stderr=subprocess.STDOUT, start_new_session=True)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            seen = b""
            while (code := build.poll()) is None:
                time.sleep(0.5)
                seen = seen[-4096:] + tail.read()
                if found := re.findall(rb"^\s*(\[\s*\d+(?:/\d+|%)\])", seen, re.M):
                    progress, phase = found[-1].decode() + " ", "compiling"
                elif progress:
                    phase = "packing the wheel"
                elif b"Building wheel" in seen:
                    phase = "configuring"
                elif b"Getting requirements to build" in seen or b"Installing build dependencies" in seen:
                    phase = "preparing the build"
                if time.monotonic() - said >= 10:
                    said = time.monotonic()
                    print(f"  {progress}{said - start:.0f} s  {phase}", flush=True)
            status = code
        finally:
            if build.poll() is None:  # interrupted: the compilers go too
                os.killpg(build.pid, signal.SIGTERM)
                build.wait()
except KeyboardInterrupt:
    status = 130
finally:
    shutil.rmtree(work, ignore_errors=True)
print(f"llama-cpp-python: {'compiled' if status == 0 else 'build ended'} after {time.monotonic() - start:.0f} s", flush=True)
sys.exit(0 if status == 0 else 1)
PY
    then
        printf '%s\n' "llama-cpp-python: the build failed; the first errors and the last lines of its log:" >&2
        grep -n -m 3 -A 1 -E 'CMake Error|[^a-z]error: |fatal:' "$log" | sed 's/^/    /' >&2 || true
        printf '%s\n' "    ..." >&2
        tail -n 20 "$log" | sed 's/^/    /' >&2 || true
        die "full log: $log"
    fi
    for f in "$scratch"/*.whl; do mv -f "$f" "$wheels/$key/"; done
}

wheel=$(find_wheel)
if [ -n "$wheel" ]; then
    say "installing from $wheel"
else
    build_wheel
    wheel=$(find_wheel)
    [ -n "$wheel" ] || die "the build left no wheel; full log: $log"
fi

# First the package itself, over whatever is there; then the dependencies that are missing.
pip_install() { "$PYTHON" -m pip install --quiet --disable-pip-version-check --no-warn-script-location "$@"; }
pip_install --force-reinstall --no-deps "$wheel"
pip_install "$wheel"
[ "$(imported)" = "$LLAMA_CPP_PYTHON_VERSION" ] ||
    die "installed from $wheel, but it does not import: $("$PYTHON" -c 'import llama_cpp' 2>&1 | tail -n 1)
  Remove that file and run this again to compile anew."
printf '%s\n' "$key" 2>/dev/null >"$stamp" || true
say "$LLAMA_CPP_PYTHON_VERSION installed"
