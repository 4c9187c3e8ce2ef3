//! Debian's Apache, run by a test.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::neighbour::tool;

/// Modules that every Apache of the tests has.
const MODULES: [&str; 7] =
    ["mpm_event", "authn_core", "authz_core", "authz_user", "headers", "proxy", "proxy_http"];

/// Runs Apache in `folder`, with `modules` beside [`MODULES`] and with `lines` of configuration, as a site
/// adds them to Debian's own files.
pub fn apache(folder: &Path, modules: &[&str], lines: &str) -> Command {
    let root = folder.display();
    let mut text = format!(
        "ServerRoot \"{root}\"\nDefaultRuntimeDir \"{root}\"\nPidFile \"{root}/apache.pid\"\n\
         ErrorLog \"{root}/error.log\"\nServerName localhost\n"
    );
    // Only root's Apache changes its user.
    text += "User www-data\nGroup www-data\n";
    for name in MODULES.iter().chain(modules) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so");
    }
    text += lines;
    text.push('\n');
    let file = folder.join("apache.conf");
    std::fs::write(&file, text).expect("a file in the folder");
    let mut apache = Command::new(tool("apache2"));
    // One process without children: a parent that is killed would leave children behind.
    apache.arg("-f").arg(file).arg("-X").stdin(Stdio::null());
    apache
}
