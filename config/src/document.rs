//! The ConfigMap dialect of MetalLB 0.7–0.12: the only file that knows YAML.
//!
//! A document is read in two steps. The YAML library turns the text into a tree of [`Node`]s without knowing what is
//! expected, because a reader that knew would stop at the first thing that does not fit. Then the tree is walked against
//! what the dialect has: what fits becomes [`Words`], what does not becomes a [`Problem`].
//!
//! MetalLB read its ConfigMap with a strict YAML 1.1 reader, and these rules follow from it: unknown and repeated keys are
//! mistakes, `yes` and `on` are booleans but `"true"` is not, `name: 5` is the name `5`, null is the same as absent.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::options::{DuplicateKeyPolicy, NonFiniteFloatPolicy};
use serde_saphyr::{MessageFormatter, Spanned, UserMessageFormatter};

use self::bgp::{ADVERTISEMENT, BFD_PROFILE, PEER};
use crate::check::check;
use crate::pool::Config;
use crate::problem::{Problem, Refused};
use crate::words::{PoolWords, Word, Words};

mod bgp;

/// How many lists and mappings may lie in each other.
const MOST_LEVELS: usize = 16;

/// Reads a configuration: the value of the key `config` of MetalLB's ConfigMap (0.7–0.12).
///
/// A document without content is the empty configuration.
///
/// # Errors
/// Every problem of the document; for a text that is not YAML at all the first one with its line and column.
pub fn read(document: &str) -> Result<Config, Refused> {
    check(words(document))
}

/// The words of such a document, to be checked together with those of other sources.
///
/// A text that is not YAML has one problem, with its line and column.
pub fn words(document: &str) -> Words {
    let options = serde_saphyr::options! {
        // The dialect is seven levels deep; the library recurses, with large frames in a debug build.
        budget: serde_saphyr::budget! { max_depth: MOST_LEVELS },
        // Comments are skipped, not kept: kept ones are limited in number.
        emit_comments: false,
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Node>(document, options) {
        Ok(root) => Walk {
            document,
            problems: Vec::new(),
        }
        .words(&root),
        Err(error) => Words {
            problems: vec![unreadable(&error)],
            ..Words::default()
        },
    }
}

/// The one problem of a text the YAML library cannot read.
fn unreadable(error: &serde_saphyr::Error) -> Problem {
    let place = error.location().map_or_else(
        || "config".to_string(),
        |location| format!("line {}, column {}", location.line(), location.column()),
    );
    let what = UserMessageFormatter.format_message(error).into_owned();
    Problem::new(place, what, "correct the YAML text there")
}

/// A value of the document and where it stands.
struct Node(Spanned<Shape>);

impl Node {
    fn is_map(&self) -> bool {
        matches!(self.0.value, Shape::Map(_))
    }

    /// The entries of a mapping; none of anything else.
    fn entries(&self) -> &[(Node, Node)] {
        match &self.0.value {
            Shape::Map(entries) => entries,
            _ => &[],
        }
    }
}

/// What a value is, as far as YAML itself can tell.
enum Shape {
    Null,
    Bool(bool),
    /// A number; its text is found again by its place, since `010` and `1_0` must not become other texts.
    Number,
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ShapeVisitor)
    }
}

/// Takes whatever YAML has.
struct ShapeVisitor;

impl<'de> Visitor<'de> for ShapeVisitor {
    type Value = Shape;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any YAML value")
    }

    fn visit_unit<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_none<E>(self) -> Result<Shape, E> {
        Ok(Shape::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Shape, E> {
        Ok(Shape::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
        Ok(Shape::Number)
    }

    fn visit_str<E>(self, value: &str) -> Result<Shape, E> {
        Ok(Shape::Text(value.to_string()))
    }

    fn visit_bytes<E>(self, value: &[u8]) -> Result<Shape, E> {
        Ok(Shape::Text(String::from_utf8_lossy(value).into_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Shape::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Shape, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Shape::Map(entries))
    }
}

/// What may stand at a place of the document.
enum Form {
    /// A boolean.
    Bool,
    /// Any single value.
    Scalar,
    /// A list whose items all have this form.
    List(&'static Form),
    /// A mapping with free keys and single values.
    Table,
    /// A mapping that has these keys and no others.
    Section(&'static [(&'static str, Form)]),
}

/// Keys of `address-pools[]`.
const POOL: &[(&str, Form)] = &[
    ("name", Form::Scalar),
    ("protocol", Form::Scalar),
    ("addresses", Form::List(&Form::Scalar)),
    ("auto-assign", Form::Bool),
    ("avoid-buggy-ips", Form::Bool),
    ("bgp-advertisements", ADVERTISEMENTS),
];

/// `address-pools[].bgp-advertisements`.
const ADVERTISEMENTS: Form = Form::List(&Form::Section(ADVERTISEMENT));

/// The top of the document.
const TOP: &[(&str, Form)] = &[
    ("peers", Form::List(&Form::Section(PEER))),
    ("bgp-communities", Form::Table),
    ("bfd-profiles", Form::List(&Form::Section(BFD_PROFILE))),
    ("address-pools", Form::List(&Form::Section(POOL))),
];

/// The walk over the tree: collects problems while it reads.
struct Walk<'a> {
    document: &'a str,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn problem(
        &mut self,
        place: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem::new(place, what, remedy));
    }

    /// The whole document as words.
    fn words(mut self, root: &Node) -> Words {
        let mut words = Words::default();
        for (key, _, value) in self.section(root, "", TOP) {
            if key != "address-pools" {
                if let Some((_, form)) = TOP.iter().find(|(known, _)| *known == key) {
                    self.expect(value, key, form);
                    self.quiet().bgp(key, value, &mut words.bgp);
                }
                continue;
            }
            for (index, item) in self.list(value, key).unwrap_or_default().iter().enumerate() {
                let outside = std::mem::take(&mut self.problems);
                let mut pool = self.pool(item, format!("{key}[{index}]"));
                pool.problems = std::mem::replace(&mut self.problems, outside);
                words.pools.push(pool);
            }
        }
        words.problems = self.problems;
        words
    }

    /// One of `address-pools`.
    fn pool(&mut self, node: &Node, place: String) -> PoolWords {
        let mut pool = PoolWords::default();
        if !node.is_map() {
            self.wrong_shape(node, &place, "a mapping that starts with \"name:\"");
            // One problem is enough for a pool that is none.
            (pool.name, pool.protocol, pool.addresses) =
                (Word::Unreadable, Word::Unreadable, Word::Unreadable);
        }
        for (key, path, value) in self.section(node, &place, POOL) {
            match key {
                "name" => pool.name = self.text(value, &path),
                "protocol" => pool.protocol = self.text(value, &path),
                "auto-assign" => pool.auto_assign = self.boolean(value, &path),
                "avoid-buggy-ips" => pool.avoid_buggy_ips = self.boolean(value, &path),
                "addresses" => pool.addresses = self.addresses(value, &path),
                "bgp-advertisements" => {
                    self.expect(value, &path, &ADVERTISEMENTS);
                    pool.bgp_advertisements = self.quiet().advertisements(value, &path);
                }
                _ => {}
            }
        }
        pool.place = place;
        pool
    }

    /// `addresses`: a null or a list where an address should be is a problem of that one entry.
    fn addresses(&mut self, node: &Node, place: &str) -> Word<Vec<Word<String>>> {
        if matches!(node.0.value, Shape::Null) {
            return Word::Absent;
        }
        let Some(items) = self.list(node, place) else {
            return Word::Unreadable;
        };
        let mut words = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{place}[{index}]");
            words.push(match self.text(item, &path) {
                Word::Absent => {
                    let remedy = "write an address range there or remove the \"-\"";
                    self.problem(path, "the entry is empty", remedy);
                    Word::Unreadable
                }
                word => word,
            });
        }
        Word::Said(words)
    }

    /// The entries of a mapping whose keys are among the known ones, each once: key, path, value. Anything else becomes
    /// a problem; null is a mapping without entries.
    fn section<'n>(
        &mut self,
        node: &'n Node,
        place: &str,
        known: &[(&'static str, Form)],
    ) -> Vec<(&'static str, String, &'n Node)> {
        let entries = match &node.0.value {
            Shape::Map(entries) => entries.as_slice(),
            Shape::Null => &[],
            _ => {
                // A pool has said so already, in its own words.
                if place.is_empty() {
                    self.wrong_shape(node, "config", "a mapping with the key address-pools");
                }
                &[]
            }
        };
        let mut found: Vec<(&'static str, String, &'n Node)> = Vec::new();
        for (key, path, value) in self.keyed(entries, place) {
            if let Some((name, _)) = known.iter().find(|(name, _)| *name == key) {
                found.push((*name, path, value));
            } else {
                let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
                let remedy = format!("remove it or write one of: {}", names.join(", "));
                self.problem(path, format!("unknown key {key:?}"), remedy);
            }
        }
        found
    }

    /// The entries of a mapping with their keys as texts; keys that are no texts and repeated keys become problems.
    fn keyed<'n>(
        &mut self,
        entries: &'n [(Node, Node)],
        place: &str,
    ) -> Vec<(String, String, &'n Node)> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        for (key, value) in entries {
            let Some(key) = self.scalar(key) else {
                let place = if place.is_empty() { "config" } else { place };
                self.problem(place, "a key is not a text", "write keys as plain texts");
                continue;
            };
            let path = if place.is_empty() {
                key.clone()
            } else {
                format!("{place}.{key}")
            };
            if seen.insert(key.clone()) {
                found.push((key, path, value));
            } else {
                self.problem(
                    path,
                    format!("the key {key:?} is written more than once"),
                    "write it once",
                );
            }
        }
        found
    }

    /// The items of a list; null is the empty list.
    fn list<'n>(&mut self, node: &'n Node, place: &str) -> Option<&'n [Node]> {
        match &node.0.value {
            Shape::List(items) => Some(items),
            Shape::Null => Some(&[]),
            _ => {
                self.wrong_shape(node, place, "a list");
                None
            }
        }
    }

    /// A single value as the text it was written with.
    fn text(&mut self, node: &Node, place: &str) -> Word<String> {
        if matches!(node.0.value, Shape::Null) {
            return Word::Absent;
        }
        if let Some(text) = self.scalar(node) {
            return Word::Said(text);
        }
        self.wrong_shape(node, place, "a single value");
        Word::Unreadable
    }

    /// A boolean of YAML 1.1: `true`, `yes`, `on`, `y` and their opposites, never quoted.
    fn boolean(&mut self, node: &Node, place: &str) -> Word<bool> {
        match &node.0.value {
            Shape::Null => return Word::Absent,
            Shape::Bool(value) => return Word::Said(*value),
            Shape::Text(text) => {
                let remedy = "write true or false without quotes";
                self.problem(place, format!("{text:?} is a text, not a boolean"), remedy);
            }
            _ => self.wrong_shape(node, place, "true or false"),
        }
        Word::Unreadable
    }

    /// The text of a value that is neither null, list nor mapping.
    fn scalar(&self, node: &Node) -> Option<String> {
        match &node.0.value {
            Shape::Text(text) => Some(text.clone()),
            Shape::Bool(_) | Shape::Number => {
                let span = node.0.defined.span();
                let start = usize::try_from(span.byte_offset()?).ok()?;
                let end = start.checked_add(usize::try_from(span.byte_len()?).ok()?)?;
                self.document
                    .get(start..end)
                    .map(|text| text.trim().to_string())
            }
            Shape::Null | Shape::List(_) | Shape::Map(_) => None,
        }
    }

    /// Checks the form of a value that is not used further.
    fn expect(&mut self, node: &Node, place: &str, form: &Form) {
        match form {
            Form::Bool => drop(self.boolean(node, place)),
            Form::Scalar => drop(self.text(node, place)),
            Form::List(item) => {
                for (index, node) in self
                    .list(node, place)
                    .unwrap_or_default()
                    .iter()
                    .enumerate()
                {
                    self.expect(node, &format!("{place}[{index}]"), item);
                }
            }
            Form::Table => match &node.0.value {
                Shape::Map(entries) => {
                    for (_, path, value) in self.keyed(entries, place) {
                        self.expect(value, &path, &Form::Scalar);
                    }
                }
                Shape::Null => {}
                _ => self.wrong_shape(node, place, "a mapping"),
            },
            Form::Section(known) => {
                if !matches!(node.0.value, Shape::Map(_) | Shape::Null) {
                    self.wrong_shape(node, place, "a mapping");
                }
                for (key, path, value) in self.section(node, place, known) {
                    if let Some((_, form)) = known.iter().find(|(known, _)| *known == key) {
                        self.expect(value, &path, form);
                    }
                }
            }
        }
    }

    fn wrong_shape(&mut self, node: &Node, place: &str, wanted: &str) {
        let what = match &node.0.value {
            Shape::Null => "there is nothing here",
            Shape::Bool(_) => "a boolean stands here",
            Shape::Number => "a number stands here",
            Shape::Text(_) => "a text stands here",
            Shape::List(_) => "a list stands here",
            Shape::Map(_) => "a mapping stands here",
        };
        self.problem(place, what, format!("write {wanted}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Pieces of configurations, which random text alone would never hit.
    fn fragment() -> impl Strategy<Value = String> {
        prop_oneof![
            Just("address-pools:\n".to_string()),
            Just("- name: a\n".to_string()),
            Just("  protocol: layer2\n".to_string()),
            Just("  addresses:\n  - ".to_string()),
            Just("  addresses: [".to_string()),
            Just("10.0.0.0/24".to_string()),
            Just("fc00::1-fc00::9".to_string()),
            Just("&a ".to_string()),
            Just("*a".to_string()),
            Just("<<: ".to_string()),
            Just("  auto-assign: yes\n".to_string()),
            "[\\[\\]{},:&*!|>'\"%@`?#~ \n\t-]{0,4}",
            "\\PC{0,6}",
            any::<String>(),
        ]
    }

    proptest! {
        #[test]
        fn any_text_is_a_configuration_or_problems(fragments in prop::collection::vec(fragment(), 0..24)) {
            if let Err(refused) = read(&fragments.concat()) {
                prop_assert!(!refused.problems().is_empty());
                prop_assert_eq!(refused.to_string().lines().count(), refused.problems().len());
            }
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_the_stack_ends() {
        for (open, close) in [("[", "]"), ("{a: ", "}")] {
            let document = open.repeat(50_000) + &close.repeat(50_000);
            assert!(read(&document).is_err());
        }
        assert!(read(&"- ".repeat(50_000)).is_err());
    }
}
