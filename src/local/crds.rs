//! `toolgate crds`: the custom resource definitions as YAML, one file a kind.

use std::path::Path;

use crate::api::schema::definitions;

/// File name and text of every definition, in the order of their names.
///
/// # Panics
/// Never: a definition is plain data.
#[allow(clippy::expect_used)]
pub fn render() -> Vec<(String, String)> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    definitions()
        .into_iter()
        .map(|definition| {
            let yaml = serde_saphyr::to_string_with_options(&definition.crd, options.clone())
                .expect("a definition holds only strings, numbers, booleans and lists");
            (format!("toolgate.dev_{}.yaml", definition.plural), format!("# Written by `toolgate crds`.\n{yaml}"))
        })
        .collect()
}

/// Writes every definition into a folder, which must exist.
pub fn write(dir: &Path) -> std::io::Result<()> {
    render().into_iter().try_for_each(|(name, text)| std::fs::write(dir.join(name), text))
}
