# FerroLB's two images: static binaries on nothing.
#   docker build --target controller -t ferrolb/controller:0.1.0 .
#   docker build --target speaker    -t ferrolb/speaker:0.1.0 .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# An explicit --target keeps crt-static away from build scripts and proc macros.
RUN triple="$(rustc -vV | sed -n 's/^host: //p')" \
 && RUSTFLAGS="-C target-feature=+crt-static" \
    cargo build --locked --release --target "$triple" -p ferrolb-controller -p ferrolb-speaker \
 && mkdir /out && cp "target/$triple/release/controller" "target/$triple/release/speaker" /out/

FROM scratch AS controller
COPY --from=build /out/controller /controller
USER 65534:65534
ENTRYPOINT ["/controller"]

# Root, because Kubernetes puts added capabilities (NET_RAW) only into root's effective set.
FROM scratch AS speaker
COPY --from=build /out/speaker /speaker
ENTRYPOINT ["/speaker"]
