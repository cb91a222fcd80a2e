//! What was acknowledged is enforced: for bodies that trickle in, tasks that outlive a right, streams that stay open.

use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt as _, StreamExt as _};
use http_body_util::StreamBody;
use hyper::Method;
use hyper::body::Frame;
use serde_json::json;
use toolgate::policy::Snapshot;

use crate::support::http::{self, Answer};
use crate::support::policy::PolicyServer;
use crate::support::sidecar::{Pod, Sidecar, acked, ready, version};
use crate::support::{Client, Folder, Server, Toolgate, eventually};

/// A request whose body has arrived by half.
struct Half {
    rest: Bytes,
    body: mpsc::Sender<Result<Frame<Bytes>, std::convert::Infallible>>,
    answer: tokio::task::JoinHandle<Answer>,
}

impl Half {
    /// Sends the head and half of the body of a call, and waits until the gateway serves it.
    async fn call(gateway: &Sidecar, client: &Client, tool: &str) -> Self {
        let (headers, text) = client.message("tools/call", json!({"name": tool, "arguments": {}}));
        let mut first = Bytes::from(text);
        let rest = first.split_off(first.len() / 2);
        let (mut body, frames) = mpsc::channel(1);
        body.send(Ok(Frame::data(first))).await.unwrap();
        let url = client.url.clone();
        let answer = tokio::spawn(async move {
            let sent = http::open_body(Method::POST, &url, headers, StreamBody::new(frames.boxed())).await;
            sent.expect("the gateway answers").rest().await
        });
        eventually("the call is being served", async || {
            (gateway.figure("mcp_active_requests").await? > 0.0).then_some(())
        })
        .await;
        Self { rest, body, answer }
    }

    /// Sends the rest.
    async fn finish(mut self) -> Answer {
        self.body.send(Ok(Frame::data(self.rest))).await.unwrap();
        drop(self.body);
        self.answer.await.unwrap()
    }
}

#[tokio::test]
async fn a_call_whose_body_trickles_in_is_decided_by_the_policy_that_was_acknowledged_meanwhile() {
    let server = Server::start("fixture-hostile", &[]);
    let (pod, policy) = (Pod::new("trickle", ["--upstream", server.url.as_str()]), PolicyServer::start().await);
    policy.publish(policy.seal(&pod.allowing(&["ok", "secret"]), &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let half = Half::call(&gateway, &gateway.client(), "secret").await;

    policy.publish(policy.seal(&pod.allowing(&["ok"]), &version(2))).await;
    acked(&policy, &version(2)).await;

    half.finish().await.refused(200, -32602, "unknown tool");
}

#[tokio::test]
async fn a_token_of_an_issuer_that_went_while_the_body_arrived_is_not_accepted() {
    let server = Server::start("fixture-hostile", &[]);
    let (pod, policy) = (Pod::new("issuers", ["--upstream", server.url.as_str()]), PolicyServer::start().await);
    let (trusting, token) = pod.allowing_ada(&["ok"]);
    policy.publish(policy.seal(&trusting, &version(1))).await;
    let gateway = pod.start(&policy).await;
    ready(&gateway).await;
    let client = Client { token: Some(token), ..gateway.client() };
    assert_eq!(client.call("ok", json!({})).await.text(), "ok {}");
    let half = Half::call(&gateway, &client, "ok").await;

    policy.publish(policy.seal(&Snapshot { issuers: Vec::new(), ..trusting }, &version(2))).await;
    acked(&policy, &version(2)).await;

    half.finish().await.refused(401, -31007, "");
}

/// A server of tasks, where ada may do everything.
async fn with_tasks() -> (Server, Toolgate) {
    let server = Server::start("fixture-conformance", &[]);
    let toolgate = Toolgate::start(Folder::new().remote("t", &server.url).all_for_ada()).await;
    (server, toolgate)
}

/// A client that knows tasks, and a task of its own that runs for a minute.
async fn with_task(toolgate: &Toolgate) -> (Client, String) {
    let capabilities = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let ada = Client { capabilities, ..toolgate.modern("t", "ada") };
    let arguments = json!({"name": "slow_compute", "arguments": {"seconds": 60, "label": "x"}});
    let result = ada.request("tools/call", arguments).await.result();
    (ada, result["taskId"].as_str().unwrap_or_else(|| panic!("no task in {result}")).to_owned())
}

#[tokio::test]
async fn a_task_does_not_outlive_the_right_that_made_it_but_its_creator_may_cancel_it() {
    let (_server, toolgate) = with_tasks().await;
    let (ada, task) = with_task(&toolgate).await;
    let about = json!({"taskId": task});
    assert_eq!(ada.request("tasks/get", about.clone()).await.result()["taskId"], json!(task));

    let rules = json!([{"effect": "Allow", "servers": ["*"], "tools": ["another"]}]);
    toolgate.folder.write("role-everything.yaml", &crate::support::folder::role("everything", "engineering", &rules));

    let refused = eventually("the right is gone", async || {
        let answer = ada.request("tasks/get", about.clone()).await;
        answer.response().get("error").is_some().then_some(answer)
    })
    .await;
    refused.refused(200, -32602, "unknown task");
    ada.request("tasks/update", json!({"taskId": task, "inputResponses": {}})).await.refused(200, -32602, "unknown");
    toolgate.modern("t", "grace").request("tasks/cancel", about.clone()).await;
    ada.request("tasks/cancel", about).await.result();
}

#[tokio::test]
async fn a_time_window_that_closed_hides_no_result_of_a_task() {
    let (_server, toolgate) = with_tasks().await;
    let (ada, task) = with_task(&toolgate).await;
    // A day that is not today anywhere.
    let today = jiff::Zoned::now().with_time_zone(jiff::tz::TimeZone::UTC).weekday().to_monday_zero_offset();
    let days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    let other = days[usize::try_from((today + 3) % 7).unwrap()];
    let window = json!({"days": [other], "start": "00:00", "end": "24:00", "timeZone": "UTC"});
    let rules = json!([{"effect": "Allow", "servers": ["*"], "tools": ["*"], "timeWindow": window}]);
    toolgate.folder.write("role-everything.yaml", &crate::support::folder::role("everything", "engineering", &rules));
    eventually("the window is closed", async || ada.list("tools").await.is_empty().then_some(())).await;

    assert_eq!(ada.request("tasks/get", json!({"taskId": task})).await.result()["taskId"], json!(task));
    let arguments = json!({"name": "slow_compute", "arguments": {"seconds": 60, "label": "x"}});
    ada.request("tools/call", arguments).await.refused(200, -32602, "unknown tool");
}
