//! The order of nodes for one address: MetalLB's since 0.11, so that mixed clusters agree.

use sha2::{Digest, Sha256};

/// The first of `nodes` in the order for `key`; none if there are none. `key` is an address in its canonical text (dotted,
/// or RFC 5952).
pub fn first<'a>(nodes: impl IntoIterator<Item = &'a str>, key: &str) -> Option<&'a str> {
    nodes
        .into_iter()
        .min_by_key(|node| (place(node, key), *node))
}

/// A node's place in the order for `key`, ascending: the SHA-256 digest of `node "#" key`.
///
/// It depends on nothing but the node's own name and the key, so a node that comes or goes moves only the addresses it
/// comes first for.
pub(crate) fn place(node: &str, key: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(node)
        .chain_update("#")
        .chain_update(key)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{first, place};

    fn order<'a>(mut nodes: Vec<&'a str>, key: &str) -> Vec<&'a str> {
        nodes.sort_by_cached_key(|node| place(node, key));
        nodes
    }

    #[test]
    fn metallb_digests() {
        let hex = |node| {
            let digest = place(node, "192.168.99.96");
            digest.map(|byte| format!("{byte:02x}")).concat()
        };
        for (node, digest) in [
            (
                "node-a",
                "0c94aa25539d8b369225d9f44d310c90bf59b38e6642cfffdb355db07857f4ba",
            ),
            (
                "node-b",
                "fbcb266e7d03dc4231a83ec6a4508f1380d7e48e5e1f8fac72254bfac3d08ee1",
            ),
            (
                "node-c",
                "f6cdb7099c1bab7c097d574d1a23e50c9976f7868690100d3b63c5b67eb90655",
            ),
        ] {
            assert_eq!(hex(node), digest);
        }
    }

    #[test]
    fn metallb_orders() {
        let abc = ["node-a", "node-b", "node-c"];
        let (control, one, two) = ("kind-control-plane", "kind-worker", "kind-worker2");
        let kind = [control, one, two];
        for (nodes, key, expected) in [
            (abc, "192.168.99.96", ["node-a", "node-c", "node-b"]),
            (abc, "192.168.1.240", ["node-a", "node-c", "node-b"]),
            (abc, "10.0.0.1", ["node-b", "node-a", "node-c"]),
            (abc, "fc00:f853:ccd:e799::1", ["node-b", "node-a", "node-c"]),
            (abc, "default/nginx", ["node-b", "node-c", "node-a"]),
            (kind, "192.168.1.240", [control, two, one]),
            (kind, "192.168.99.96", [two, one, control]),
            (kind, "10.0.0.1", [two, one, control]),
            (kind, "fc00:f853:ccd:e799::1", [two, control, one]),
            (kind, "default/nginx", [two, control, one]),
        ] {
            assert_eq!(order(nodes.to_vec(), key), expected, "{key}");
        }
        assert_eq!(first(["iris1", "iris2"], "10.20.30.1"), Some("iris2"));
        assert_eq!(first(["iris1", "iris2"], "10.20.30.2"), Some("iris1"));
        assert_eq!(first([], "10.20.30.2"), None);
    }

    proptest! {
        #[test]
        fn first_is_the_first_and_losing_a_node_moves_only_its_own(
            mut nodes in prop::collection::btree_set("[a-z]{1,4}", 1..8), key in "[0-9.]{1,9}",
        ) {
            let all = nodes.clone();
            let all = order(all.iter().map(String::as_str).collect(), &key);
            prop_assert_eq!(first(nodes.iter().map(String::as_str), &key), Some(all[0]));
            let lost = nodes.pop_first().unwrap();
            let rest: Vec<&str> = all.into_iter().filter(|node| *node != lost).collect();
            prop_assert_eq!(order(nodes.iter().map(String::as_str).collect(), &key), rest);
        }
    }
}
