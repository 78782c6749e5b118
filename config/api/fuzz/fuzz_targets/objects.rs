//! Any object is a configuration or a list of problems, never a crash. Seeds: the objects of `../inputs`, as JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(object) = serde_json::from_str(text) {
        let mut words = ferrolb_config_api::pool_words(&object);
        words.append(ferrolb_config_api::advertisement_words(&object));
        if let Err(refused) = ferrolb_config::check(words) {
            assert!(!refused.problems().is_empty());
        }
    }
});
