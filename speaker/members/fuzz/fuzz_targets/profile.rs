//! Any text at all, as the tuning file.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = ferrolb_speaker_members::Profile::from_json(text);
});
