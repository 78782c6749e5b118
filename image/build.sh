#!/usr/bin/env bash
# Builds FerroLB's three images from the Dockerfile with whichever of docker, podman and buildah works here, and checks
# what comes out: `make images`. ENGINE= chooses one, IMAGE_FLAGS= are further arguments of its `build`, PREFIX= and
# VERSION= name the images.
#
# With --offline the builder's image is not fetched: it is made of Debian's packages and this machine's Rust, crates come
# from this machine's cache, and the engine is buildah. That needs root and debootstrap.
set -euo pipefail
cd "$(dirname "$0")/.."

VERSION=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
PREFIX=${PREFIX:-docker.io/ferrolb}
COMMIT=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
LARGEST=12000000
# At the same place inside as outside, or cargo would not know again what it has compiled.
cargo_home=${CARGO_HOME:-$HOME/.cargo}

# An engine that answers: a client alone cannot build.
works() {
  case $1 in
    docker) docker info >/dev/null 2>&1 ;;
    *) command -v "$1" >/dev/null && "$1" info >/dev/null 2>&1 ;;
  esac
}

# The builder's image from what is at hand. Its root file system is kept for the next time.
offline_builder() {
  local room=${CARGO_TARGET_DIR:-target}/image-builder
  if [ ! -e "$room/complete" ]; then
    rm -rf "$room" && mkdir -p "$room"
    debootstrap --variant=minbase --include=ca-certificates,gcc,libc6-dev bookworm "$room/root"
    rm -rf "$room"/root/var/cache/apt/archives/*.deb "$room"/root/var/lib/apt/lists/*
    touch "$room/complete"
  fi
  printf '%s\n' 'FROM scratch' 'COPY . /' "ENV PATH=/usr/local/rust/bin:/usr/sbin:/usr/bin:/sbin:/bin CARGO_NET_OFFLINE=true" \
    "ENV CARGO_HOME=$cargo_home" >"$room/Dockerfile"
  echo "==> the builder's image, from Debian's packages"
  buildah build --isolation chroot --file "$room/Dockerfile" --tag localhost/ferrolb-builder "$room/root" >/dev/null
}

flags=(${IMAGE_FLAGS:-})
if [ "${1:-}" = --offline ]; then
  ENGINE=buildah
  offline_builder
  cargo fetch --locked --quiet
  flags+=(
    --isolation chroot
    --build-arg RUST_IMAGE=localhost/ferrolb-builder
    --volume "$(rustc --print sysroot):/usr/local/rust:ro"
    --volume "$cargo_home/registry:$cargo_home/registry"
  )
elif [ -z "${ENGINE:-}" ]; then
  for engine in docker podman buildah; do
    if works "$engine"; then ENGINE=$engine && break; fi
  done
  : "${ENGINE:?no container engine works here: start docker, or install podman or buildah}"
fi
# The stages before the last are kept for the next image; docker always does.
if [ "$ENGINE" != docker ]; then flags+=(--layers); fi

inspect() { # IMAGE GO-TEMPLATE
  case $ENGINE in
    buildah) buildah inspect --type image --format "{{with .OCIv1}}$2{{end}}" "$1" ;;
    *) "$ENGINE" image inspect --format "$2" "$1" ;;
  esac
}
layers() { # IMAGE
  case $ENGINE in
    buildah) inspect "$1" '{{.RootFS.DiffIDs}}' ;;
    *) inspect "$1" '{{.RootFS.Layers}}' ;;
  esac
}
bytes() { # IMAGE
  case $ENGINE in
    buildah) buildah images --json "$1" | sed -n 's/.*"sizeRaw": *\([0-9]*\).*/\1/p' | head -1 ;;
    *) inspect "$1" '{{.Size}}' ;;
  esac
}

for name in ferrolb controller speaker; do
  echo "==> $PREFIX/$name:$VERSION, with $ENGINE"
  "$ENGINE" build ${flags[@]+"${flags[@]}"} --build-arg COMMIT="$COMMIT" --target "$name" --tag "$PREFIX/$name:$VERSION" .
done

echo "==> what came out"
shared=$(layers "$PREFIX/ferrolb:$VERSION")
for name in ferrolb controller speaker; do
  image=$PREFIX/$name:$VERSION
  size=$(bytes "$image")
  user=$(inspect "$image" '{{.Config.User}}')
  echo "$image: $size bytes, starts $(inspect "$image" '{{.Config.Entrypoint}}') as user ${user:-0}"
  [ "$(inspect "$image" '{{.Config.Entrypoint}}')" = "[/$name]" ] || { echo "it starts something else"; exit 1; }
  [ "$(layers "$image")" = "$shared" ] || { echo "its layer is not that of the others"; exit 1; }
  [ "$size" -le $LARGEST ] || echo "larger than the $LARGEST bytes aimed at"
done
[ "$(inspect "$PREFIX/controller:$VERSION" '{{.Config.User}}')" = 65534:65534 ] || { echo "the controller is root"; exit 1; }
