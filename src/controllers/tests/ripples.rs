//! Who is looked at when a server changed.

use parking_lot::Mutex;

use super::*;
use crate::controllers::ripple::Stir;

/// A server `a` with a tool `t`, a role `r` and nothing left to write, whose followers have been told what it offers.
struct Scene {
    world: World,
    process: Process,
    queues: Queues,
}

/// Names of what was looked at.
#[derive(Debug, Default, PartialEq)]
struct Looked {
    servers: Vec<String>,
    tools: Vec<String>,
    roles: Vec<String>,
}

impl Scene {
    async fn settled() -> Self {
        let (world, process) = super::reports::settled().await;
        Self { world, process, queues: Queues::default() }
    }

    /// What is looked at within a second when `a` is stirred, after it was stirred once for the first time.
    async fn stirred(&self, change: impl FnOnce(&World), stir: Stir) -> Looked {
        let Self { world, process, queues } = self;
        let spreading = queues.ripple.spread(queues, &process.context);
        let telling = async {
            queues.ripple.stir(server(), Stir::Policy);
            self.looked().await;
            change(world);
            process.context.caches.read(&world.fake);
            queues.ripple.stir(server(), stir);
            self.looked().await
        };
        tokio::select! {
            () = spreading => unreachable!("it never ends"),
            looked = telling => looked,
        }
    }

    async fn looked(&self) -> Looked {
        let Queues { servers, tools, roles, .. } = &self.queues;
        let (servers, tools, roles) = tokio::join!(drained(servers), drained(tools), drained(roles));
        Looked { servers, tools, roles }
    }
}

async fn drained(queue: &Queue) -> Vec<String> {
    let (stop, looked) = (CancellationToken::new(), Arc::new(Mutex::new(Vec::new())));
    let looking = queue.run(1, &stop, |(_, name)| {
        let looked = looked.clone();
        async move {
            looked.lock().push(name);
            Next::Wait
        }
    });
    let _ = tokio::time::timeout(Duration::from_secs(1), looking).await; // It runs for as long as it is let.
    std::mem::take(&mut *looked.lock())
}

fn server() -> Key {
    ("agents".to_owned(), "a".to_owned())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn where_all_is_well_an_acknowledgement_concerns_the_server_alone() {
    let scene = Scene::settled().await;

    let looked = scene.stirred(|_| {}, Stir::Policy).await;

    assert_eq!(looked, Looked { servers: names(&["a"]), ..Looked::default() });
}

#[tokio::test(start_paused = true)]
async fn what_was_edited_hears_of_every_acknowledgement() {
    let scene = Scene::settled().await;

    let edit = |world: &World| {
        world.put(
            TOOLS,
            "McpTool",
            "t",
            &json!({"serverRef": {"name": "a"}, "toolName": "read", "lifecycle": "Active"}),
        );
        world.put(ROLES, "McpRole", "r", &json!({"rules": []}));
    };
    let looked = scene.stirred(edit, Stir::Policy).await;

    assert_eq!((looked.tools, looked.roles), (names(&["t"]), names(&["r"])));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_ceased_to_concern_a_server_hears_of_it_until_it_is_programmed() {
    let scene = Scene::settled().await;

    let edit = |world: &World| {
        world.judge("h1");
        let mut judgement = Judgement { said: world.index.now().said.clone(), ..Judgement::default() };
        for (target, published) in &world.index.now().published {
            let inputs = published.inputs.iter().filter(|input| input.kind != "McpRole").cloned().collect();
            judgement.published.insert(target.clone(), Arc::new(Published { inputs, ..published.as_ref().clone() }));
        }
        world.index.put(judgement);
        world.put(ROLES, "McpRole", "r", &json!({"rules": []}));
    };
    let looked = scene.stirred(edit, Stir::Policy).await;

    assert_eq!(looked.roles, names(&["r"]));
}

#[tokio::test(start_paused = true)]
async fn tools_hear_of_another_offer() {
    let scene = Scene::settled().await;

    let looked = scene.stirred(|world| world.pod("h1", &["write"]), Stir::Any).await;

    assert_eq!((looked.servers, looked.tools, looked.roles), (names(&["a"]), names(&["t"]), vec![]));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_well_tells_everybody() {
    let scene = Scene::settled().await;

    let edit = |world: &World| {
        let spec = json!({"source": {"container": {"image": "i:2", "transport": "Stdio"}}});
        world.put(SERVERS, "McpServer", "a", &spec);
    };
    let looked = scene.stirred(edit, Stir::Status).await;

    assert_eq!((looked.servers, looked.tools, looked.roles), (vec![], names(&["t"]), names(&["r"])));
}
