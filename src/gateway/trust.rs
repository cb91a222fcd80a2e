//! Follows the file of the certificate authorities that may vouch for a remote server.
//!
//! It is a ConfigMap's, and the kubelet swaps it when that changes. Without a restart an authority that is added
//! counts, and one that is removed no longer does.

use std::path::Path;
use std::time::Duration;

use super::state;
use super::upstream::UpstreamError;

/// Time between two looks at the file. The kubelet takes a minute or so to swap it.
const PERIOD: Duration = Duration::from_secs(10);
/// Largest file, in bytes: what a ConfigMap can hold.
const BYTES: usize = 1 << 20;

/// Hands in what the file holds, at first and whenever it changes. What cannot be used changes nothing.
pub(super) async fn follow(file: &Path, trust: impl Fn(&str) -> Result<(), UpstreamError>) {
    let mut seen = None;
    loop {
        let now = state::read(file.to_owned(), BYTES).await.map_err(|error| error.to_string());
        let now = now.and_then(|bytes| bytes.ok_or_else(|| "there is no such file".to_owned()));
        if seen.as_ref() != Some(&now) {
            let used = now.clone().and_then(|bytes| {
                let ca = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
                trust(ca).map_err(|error| error.to_string())
            });
            match used {
                Ok(()) => tracing::info!("the server's certificate authorities are those of the file"),
                Err(error) => tracing::warn!(
                    file = %file.display(), error,
                    "the server's certificate authorities cannot be used; those before stay in force"
                ),
            }
            seen = Some(now);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_change_of_the_file_is_handed_in_once_and_what_is_unusable_does_not_end_it() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        let seen = Mutex::new(Vec::new());
        let following = follow(&file, |ca| {
            seen.lock().push(ca.to_owned());
            if ca == "two" { Err(UpstreamError::Unreachable("it is no PEM".to_owned())) } else { Ok(()) }
        });
        let mut following = std::pin::pin!(following);
        // Between two looks, so that none is half done while the file is written.
        let mut until = tokio::time::Instant::now() + PERIOD / 2;
        let mut looks = async || {
            until += PERIOD * 2;
            let _ = tokio::time::timeout_at(until, &mut following).await;
        };

        for (content, handed_in) in
            [(None, 0), (Some("one"), 1), (Some("one"), 1), (Some("two"), 2), (None, 2), (Some("three"), 3)]
        {
            match content {
                Some(content) => std::fs::write(&file, content).unwrap(),
                None => drop(std::fs::remove_file(&file)),
            }
            looks().await;
            assert_eq!(seen.lock().len(), handed_in, "{content:?}");
        }

        assert_eq!(*seen.lock(), ["one", "two", "three"]);
    }
}
