//! Any text is a configuration or a list of problems, never a crash. Seeds: `../inputs/{pass,fail}`.
#![no_main]

libfuzzer_sys::fuzz_target!(|document: &str| {
    if let Err(refused) = ferrolb_config::read(document) {
        assert!(!refused.problems().is_empty());
    }
});
