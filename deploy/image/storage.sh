# Sourced: buildah with everything it keeps in a folder of our own, so that the machine's own images and containers are not touched.
cache=${XDG_CACHE_HOME:-$HOME/.cache}/mig-agent/image
builder_base=localhost/mig-agent/base/builder
runtime_base=localhost/mig-agent/base/runtime
image_store=localhost/mig-agent/image

say() { echo "image: $*" >&2; }

die() {
  say "$*"
  exit 1
}

# Runs the calling script again in a mount namespace of its own, alone: no mount outlives it, whatever ends it.
alone() { # the script, its arguments...
  [ "${IMAGE_ALONE:-}" = "$cache" ] && return
  [ "$(id -u)" = 0 ] || die "building without Docker needs root (mounts, chroot)"
  mkdir -p "$cache"
  IMAGE_ALONE=$cache exec flock "$cache/lock" unshare --mount --propagation private "$@"
}

need() { # program:package...
  local missing=() pair
  for pair in "$@"; do
    # Not `command -v`: that takes the function buildah below for the program.
    type -P "${pair%%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  command -v apt-get >/dev/null || die "missing, and no apt-get to install them: ${missing[*]}"
  say "installing ${missing[*]}"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"; } \
    >"$cache/apt.log" 2>&1 || { tail -n 20 "$cache/apt.log" >&2; die "failed to install ${missing[*]}"; }
}

# Caches of `RUN --mount=type=cache` go below TMPDIR.
buildah() {
  mkdir -p "$cache/tmp" "$cache/run"
  TMPDIR=${IMAGE_TMPDIR:-$cache/tmp} command buildah --root "$cache/storage" --runroot "$cache/run" \
    --storage-driver "${STORAGE_DRIVER:-overlay}" "$@"
}
