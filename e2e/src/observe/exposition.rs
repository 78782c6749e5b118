//! What a scrape finds: the text a `/metrics` page is, by names, types and labels.

use std::collections::{BTreeMap, BTreeSet};

/// The series of one or several pages.
#[derive(Clone, Debug, Default)]
pub struct Exposition {
    /// The type of each family (`counter`, `gauge`, `histogram`, `untyped`...) by its name.
    pub types: BTreeMap<String, String>,
    /// The names of the labels of each sample, by the sample's name. A histogram's are `_bucket`, `_sum` and `_count`.
    pub samples: BTreeMap<String, BTreeSet<String>>,
}

impl Exposition {
    /// Reads a page; what is no line of the format is passed over.
    pub fn of(page: &str) -> Self {
        let mut found = Self::default();
        found.add(page);
        found
    }

    /// Reads another page in addition.
    pub fn add(&mut self, page: &str) {
        for line in page.lines().map(str::trim) {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                if let Some((name, kind)) = rest.split_once(' ') {
                    self.types.insert(name.to_owned(), kind.trim().to_owned());
                }
            } else if !line.starts_with('#')
                && let Some((name, labels)) = sample(line)
            {
                self.samples
                    .entry(name.to_owned())
                    .or_default()
                    .extend(labels);
            }
        }
    }
}

/// The name of a sample and its labels' names: `name{a="b"} 1`.
fn sample(line: &str) -> Option<(&str, Vec<String>)> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let Some(mut rest) = rest.strip_prefix('{') else {
        return Some((name, Vec::new()));
    };
    let mut labels = Vec::new();
    while !rest.starts_with('}') {
        let (label, value) = rest.split_once("=\"")?;
        labels.push(label.trim_matches([',', ' ']).to_owned());
        rest = after_quoted(value)?;
        rest = rest.trim_start_matches([',', ' ']);
    }
    Some((name, labels))
}

/// What follows the quote that ends a value.
fn after_quoted(text: &str) -> Option<&str> {
    let mut escaped = false;
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_types_and_labels_are_read() {
        let page = "# HELP a_total words {not=\"these\"}\n# TYPE a_total counter\na_total 3\n\
                    # TYPE b gauge\nb{pool=\"x, \\\"y\\\" }\",ip=\"1\"} 2\nb{node=\"n\"} 1 1700000000\n\
                    # TYPE c histogram\nc_bucket{le=\"+Inf\"} 4\nc_sum 1\nc_count 4\nbroken{a=\"b\n";
        let found = Exposition::of(page);
        assert_eq!(found.types["a_total"], "counter");
        assert_eq!(found.types["c"], "histogram");
        let names: Vec<_> = found.samples.keys().map(String::as_str).collect();
        assert_eq!(names, ["a_total", "b", "c_bucket", "c_count", "c_sum"]);
        let labels: Vec<_> = found.samples["b"].iter().map(String::as_str).collect();
        assert_eq!(labels, ["ip", "node", "pool"]);
        assert!(found.samples["a_total"].is_empty());
    }
}
