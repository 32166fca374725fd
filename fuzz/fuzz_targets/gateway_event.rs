#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| (parser_tests::GATEWAY_EVENT.check)(bytes));
