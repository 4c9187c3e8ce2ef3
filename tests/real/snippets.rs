//! Snippets that a frontend copies, checked by TypeScript against Velt's own types.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::neighbour::tool;
use crate::program::APPS;

/// Declarations that a page has before a snippet.
const BEFORE: &str = "import type { User, Velt } from '@veltdev/types';\n\
    declare const client: Velt;\ndeclare const user: User;\n";

/// Files under the root of the project whose JavaScript blocks are for pages without the package of `frontend/`,
/// which compiles its own.
const DOCUMENTS: [&str; 1] = ["docs/delivery.md"];

fn read(file: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Returns the JavaScript blocks of a document, indented or not.
fn snippets(text: &str) -> Vec<String> {
    let mut snippets = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start() == "```js" {
            let block = lines.by_ref().take_while(|line| line.trim_start() != "```");
            snippets.push(block.flat_map(|line| [line, "\n"]).collect());
        }
    }
    snippets
}

/// Returns TypeScript's complaints about the files in `folder`, empty if the files are right.
fn complaints(folder: &Path) -> String {
    let modules = Path::new(APPS).join("types/node_modules");
    let compiler = modules.join("typescript/bin/tsc");
    assert!(compiler.is_file(), "{} is missing: run tests/run", compiler.display());
    let types = modules.join("@veltdev/types");
    let settings = serde_json::json!({
        "compilerOptions": {
            "strict": true, "noEmit": true, "allowJs": true, "checkJs": true, "types": [],
            "target": "es2022", "module": "esnext", "moduleResolution": "bundler",
            "lib": ["es2022", "dom"], "skipLibCheck": true,
            "paths": { "@veltdev/types": [types] },
        },
        "include": ["*.mts", "*.js"],
    });
    fs::write(folder.join("tsconfig.json"), settings.to_string()).expect("a file in it");
    let checked = Command::new(tool("node")).arg(compiler).arg("-p").arg(folder).output();
    let checked = checked.expect("node");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert_eq!(checked.status.success(), said.is_empty(), "{checked:?}");
    said
}

#[test]
fn snippets_for_the_frontend_fit_velts_types() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut number = 0;
    for document in DOCUMENTS {
        for snippet in snippets(&read(document)) {
            number += 1;
            // A separate module, so that no snippet sees the names of another snippet.
            let file = folder.path().join(format!("snippet-{number}.mts"));
            fs::write(file, format!("{BEFORE}{snippet}")).expect("a file in it");
        }
    }
    assert!(number >= 2, "only {number} snippets were found");
    let said = complaints(folder.path());
    assert!(said.is_empty(), "{said}");
}

#[test]
fn a_null_token_does_not_fit_velts_types() {
    let folder = tempfile::tempdir().expect("a folder");
    let wrong = "await client.identify(user, { authToken: new Headers().get('X-Velt-Token') });\n";
    fs::write(folder.path().join("wrong.mts"), format!("{BEFORE}{wrong}")).expect("a file in it");
    let said = complaints(folder.path());
    assert!(said.contains("'string | null' is not assignable"), "{said}");
}

/// An app whose third answer is the first with a token, and Velt's client. No pause takes time.
const PENDING: &str = "\
    const answers = ['pending', 'pending', null].map((status) => new Headers(\n\
        status ? { 'X-Velt-Token-Status': status } : { 'X-Velt-Token': 'the-token' }));\n\
    globalThis.fetch = async () => ({ ok: true, headers: answers.shift() });\n\
    globalThis.setTimeout = (resolve) => queueMicrotask(resolve);\n\
    const user = { userId: 'ada' };\n\
    const client = {\n\
        on: () => ({ subscribe() {} }),\n\
        identify: async (_, { authToken }) => console.log(authToken),\n\
    };\n";

/// A route that fails, and Velt's client, which prints the error. `BODY` is the answer's content.
const FAILING: &str = "\
    globalThis.fetch = async () => new Response(BODY, { status: 502 });\n\
    const user = { userId: 'ada' };\n\
    const client = {\n\
        setVeltAuthProvider: async ({ generateToken }) => {\n\
            await generateToken().catch((error) => console.log(error.message));\n\
        },\n\
    };\n";

/// Returns the output of a module that runs after `before`.
fn printed(folder: &Path, before: &str, module: &str) -> String {
    let file = folder.join("module.mjs");
    fs::write(&file, format!("{before}{module}")).expect("a file in it");
    let ran = Command::new(tool("node")).arg(file).output().expect("node");
    assert!(ran.status.success(), "{module}: {ran:?}");
    String::from_utf8(ran.stdout).expect("text")
}

#[test]
fn snippets_of_the_header_ask_again_while_pending() {
    let folder = tempfile::tempdir().expect("a folder");
    for document in DOCUMENTS {
        let text = read(document);
        let snippets = snippets(&text).into_iter().filter(|it| it.contains("X-Velt-Token"));
        let snippets: Vec<_> = snippets.collect();
        assert_eq!(snippets.len(), 1, "{document}");
        assert_eq!(printed(folder.path(), PENDING, &snippets[0]), "the-token\n", "{document}");
    }
}

#[test]
fn snippets_of_the_route_survive_a_page_instead_of_json() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut modules = Vec::new();
    for document in DOCUMENTS {
        let text = read(document);
        let of_route = snippets(&text).into_iter().filter(|it| it.contains("/api/velt/token"));
        let of_route: Vec<_> = of_route.collect();
        assert_eq!(of_route.len(), 1, "{document}");
        modules.extend(of_route);
    }
    for (body, said) in [
        ("<html>Bad Gateway</html>", "the token route answered HTTP 502\n"),
        ("null", "the token route answered HTTP 502\n"),
        ("{\"error\":\"Velt is away.\"}", "Velt is away.\n"),
    ] {
        let before = FAILING.replace("BODY", &format!("{body:?}"));
        for module in &modules {
            assert_eq!(printed(folder.path(), &before, module), said, "{body}: {module}");
        }
    }
}
