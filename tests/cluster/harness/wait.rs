//! Waiting: always for something, never longer than a deadline, and with the last state in the message.

use std::fmt::Debug;
use std::time::Duration;

use kube::runtime::wait::{Condition, await_condition};
use kube::{Api, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{MissedTickBehavior, interval, timeout};

/// No test waits longer for one thing. Generous: it is met only where something is wrong, or the machine overloaded.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// The outcome of a call, if it comes in time. The client repeats calls for a long while when a server is busy.
///
/// # Panics
/// When it does not.
pub(crate) async fn within<T>(what: &str, call: impl Future<Output = T>) -> T {
    timeout(DEADLINE, call).await.unwrap_or_else(|_| panic!("could not {what} within {DEADLINE:?}"))
}

/// Watches an object until a condition holds, and returns the object as it was then; `None` if it was deleted.
///
/// # Panics
/// At the deadline, with the object as it is.
pub(crate) async fn holds<K>(api: &Api<K>, name: &str, what: &str, condition: impl Condition<K>) -> Option<K>
where
    K: Clone + Debug + Send + Serialize + DeserializeOwned + kube::Resource + 'static,
{
    match timeout(DEADLINE, await_condition(api.clone(), name, condition)).await {
        Ok(Ok(object)) => object,
        Ok(Err(error)) => panic!("{name} should {what}, but the watch failed: {error}"),
        Err(_) => {
            let last = within("read an object", api.get_opt(name)).await.map(|mut last| {
                if let Some(last) = &mut last {
                    last.managed_fields_mut().clear();
                }
                serde_json::to_string_pretty(&last)
            });
            match last {
                Ok(Ok(last)) => panic!("{name} did not {what} within {DEADLINE:?}; it is {last}"),
                other => panic!("{name} did not {what} within {DEADLINE:?}, and cannot be read: {other:?}"),
            }
        }
    }
}

/// Asks until there is an answer. Only for what no watch tells.
///
/// # Panics
/// At the deadline.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        let mut ticks = interval(Duration::from_millis(50));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(answer) = ask().await {
                return answer;
            }
        }
    })
    .await
}
