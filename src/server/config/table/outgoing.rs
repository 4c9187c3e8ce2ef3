//! The table `outgoing`: the roots that the sidecar's own calls trust.

use super::super::reader::Section;
use ground::tls::Roots;

/// Reads the table `outgoing`.
pub fn read(section: &Section<'_, '_>) -> Roots {
    let roots = section.value("roots", "auto");
    let ca_file = section.content_file("ca_file");
    if ca_file.is_some() && section.has("roots") {
        let problem = "it has no effect beside a ca_file, which alone is trusted then";
        section.complain_of_no_effect("roots", problem, "remove one of the two");
    }
    ca_file.map_or(roots, Roots::File)
}
