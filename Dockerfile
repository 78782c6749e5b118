# FerroLB's images: one static program on nothing, under three names (docs/images.md).
#   docker build -t ferrolb/ferrolb:0.1.0 .                            both daemons, told apart by what they are given
#   docker build --target controller -t ferrolb/controller:0.1.0 .
#   docker build --target speaker    -t ferrolb/speaker:0.1.0 .
# buildah and podman read it as well; `make images` builds all three with whichever is there.

# Debian's C library of this age resolves names in static programs without files of its own.
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-bookworm

# Built on each architecture by itself: the stage runs where the image will, so there is nothing to cross.
FROM ${RUST_IMAGE} AS build
WORKDIR /src
COPY . .
# What the daemons say they are, in the first line of their logs.
ARG COMMIT=unknown
# An explicit --target keeps crt-static away from build scripts and proc macros.
RUN triple="$(rustc -vV | sed -n 's/^host: //p')" \
 && FERROLB_COMMIT="${COMMIT}" RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --profile dist --target "$triple" -p ferrolb-image \
 && mkdir /out && cp "target/$triple/dist/ferrolb-image" /out/ferrolb \
 && ln -s ferrolb /out/controller && ln -s ferrolb /out/speaker \
 && touch -h -d @0 /out/*

# One layer, the same in all three images: a node keeps it once, and both daemons' code is in its memory once.
FROM scratch AS program
COPY --from=build /out/ /
# The C library gives back what is freed (docs/images.md).
ENV GLIBC_TUNABLES=glibc.malloc.mmap_threshold=65536:glibc.malloc.trim_threshold=131072
ARG COMMIT=unknown
LABEL org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${COMMIT}"

FROM program AS controller
LABEL org.opencontainers.image.title="FerroLB controller" \
      org.opencontainers.image.description="Gives Services of type LoadBalancer addresses from the operator's pools"
USER 65534:65534
ENTRYPOINT ["/controller"]

# Root, because Kubernetes puts added capabilities (NET_RAW) only into root's effective set.
FROM program AS speaker
LABEL org.opencontainers.image.title="FerroLB speaker" \
      org.opencontainers.image.description="Answers ARP and NDP for the addresses a node holds"
ENTRYPOINT ["/speaker"]

# Root for the speaker's sake; manifests give the controller its user, as MetalLB's do.
FROM program AS ferrolb
LABEL org.opencontainers.image.title="FerroLB" \
      org.opencontainers.image.description="Layer 2 load balancer for bare-metal Kubernetes: controller, speaker and tool"
ENTRYPOINT ["/ferrolb"]
