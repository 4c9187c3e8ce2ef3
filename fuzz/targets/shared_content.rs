#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| velt_sidecar_fuzz::shared_content::check(input));
