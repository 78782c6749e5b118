//! How the images' program is linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let variable = |name| env::var(name).unwrap_or_default();
    let features = variable("CARGO_CFG_TARGET_FEATURE");
    let fixed = features.split(',').any(|feature| feature == "crt-static");
    // Where Rust links with its own lld. Other linkers do not know these words, and a few hundred kilobytes are not worth
    // a build that fails.
    if fixed && variable("CARGO_CFG_TARGET_ARCH") == "x86_64" {
        // A static program moves itself into place at its start by a table of 55 000 entries of 24 bytes each; packed, of
        // some bits each (1.3 MB less). The C library reads such tables since 2.36, which a dynamic program could not count on.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        // Equal code, as generic code becomes, is kept once (0.35 MB less).
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
}
