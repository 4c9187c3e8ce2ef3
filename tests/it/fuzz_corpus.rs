//! Replays the fuzzers' inputs, so that a fault found once stays mended without a fuzzer.

use std::fs;
use std::path::Path;

/// Properties that must hold, as the fuzz targets define them.
#[path = "../../fuzz/src/lib.rs"]
pub mod properties;

use properties::{
    app_answer, assertion, cacheability, config, curl, grants, header_law, identity, route,
    session_cookie, shared_content, velt_answer, websocket_frames,
};

type Check = fn(&[u8]);

/// Fuzz targets, each with the property that must hold.
const TARGETS: [(&str, Check); 13] = [
    ("app_answer", app_answer::check),
    ("assertion", assertion::check),
    ("cacheability", cacheability::check),
    ("config", config::check),
    ("curl", curl::check),
    ("grants", grants::check),
    ("header_law", header_law::check),
    ("identity", identity::check),
    ("route", route::check),
    ("session_cookie", session_cookie::check),
    ("shared_content", shared_content::check),
    ("velt_answer", velt_answer::check),
    ("websocket_frames", websocket_frames::check),
];

#[test]
fn every_input_of_the_fuzzers_holds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, check) in TARGETS {
        let mut inputs = 0;
        for entry in fs::read_dir(folder.join(target)).expect("a folder for each target") {
            let path = entry.expect("an entry").path();
            println!("{}", path.display());
            check(&fs::read(path).expect("an input"));
            inputs += 1;
        }
        assert!(inputs >= 12, "{target} has {inputs} inputs");
    }
    let folders = fs::read_dir(folder).expect("a folder").count();
    assert_eq!(folders, TARGETS.len(), "each folder has a target");
}

#[test]
fn each_fuzz_target_has_words_to_begin_with() {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let run = fs::read_to_string(project.join("run")).expect("fuzz/run");
    let (_, listed) = run.split_once("\ntargets=(").expect("a list of targets");
    let (listed, _) = listed.split_once(')').expect("its end");
    let mut listed: Vec<_> = listed.split(' ').collect();
    listed.sort_unstable();
    assert_eq!(listed, TARGETS.map(|(target, _)| target));
    for target in listed {
        // libFuzzer refuses to start without its file.
        let words = fs::read_to_string(project.join("dictionaries").join(target));
        let words = words.unwrap_or_else(|error| panic!("fuzz/dictionaries/{target}: {error}"));
        assert!(words.lines().any(|line| line.ends_with('"')), "{target}: no words");
    }
}
