//! The paths MetalLB's registrations name, each answered by the rules of `admission.rs` and `convert.rs`.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    admission::{Kind, Rules, decide, decide_alone},
    cluster::Cluster,
    convert,
    review::{self, Answer, Request},
    upkeep::CONVERSION,
};

/// The longest review: MetalLB's limit (controller-runtime), above what etcd lets an object be.
const LONGEST: usize = 7 << 20;
/// Reviews read or answered at once; with [`LONGEST`] a bound on memory, whoever knocks.
const AT_ONCE: usize = 16;
/// How long a review may take to arrive.
const ARRIVAL: Duration = Duration::from_secs(5);
/// How long the API server may take to say what else there is. It waits 10 s for us, and its own word for that is less
/// clear than ours.
const LOOKING: Duration = Duration::from_secs(8);

/// The path of MetalLB 0.13 for `AddressPool`, the kind that `IPAddressPool` followed.
const OLD_POOLS: &str = "/validate-metallb-io-v1beta1-addresspool";

struct Desk {
    cluster: Cluster,
    rules: Rules,
    seats: Semaphore,
}

/// Everything that is served.
pub fn router(cluster: Cluster, rules: Rules) -> Router {
    let desk = Arc::new(Desk {
        cluster,
        rules,
        seats: Semaphore::new(AT_ONCE),
    });
    let mut router = Router::new()
        .route(CONVERSION, post(converted))
        .route(OLD_POOLS, post(passed));
    for kind in Kind::ALL {
        let reviewed = move |State(desk): State<Arc<Desk>>, body: Body| async move {
            reviewed(&desk, kind, body).await
        };
        router = router.route(kind.path(), post(reviewed));
    }
    router.with_state(desk)
}

async fn reviewed(desk: &Desk, kind: Kind, body: Body) -> Response {
    let _seat = desk.seats.acquire().await;
    let request = match arrived(body).await {
        Ok(body) => review::read(&body),
        Err(refusal) => return refusal.into_response(),
    };
    match request {
        Ok(request) => {
            let answer = desk.answer(kind, &request).await;
            log(kind, &request, &answer);
            json(&review::write(&request.uid, &answer))
        }
        Err(error) => json(&review::write("", &Answer::Undecodable(error))),
    }
}

impl Desk {
    async fn answer(&self, kind: Kind, request: &Request) -> Answer {
        if let Some(answer) = decide_alone(kind, request, &self.rules) {
            return answer;
        }
        let looking = self.cluster.objects(kind.needs(&self.rules));
        match timeout(LOOKING, looking).await {
            Ok(Ok(objects)) => decide(kind, request, &objects, &self.rules),
            Ok(Err(error)) => Answer::Unable(format!(
                "cannot see what else is configured: {error}; try again"
            )),
            Err(_) => Answer::Unable(
                "the API server did not say in time what else is configured; try again".to_owned(),
            ),
        }
    }
}

fn log(kind: Kind, request: &Request, answer: &Answer) {
    let error = match answer {
        Answer::Allowed(_) => return,
        Answer::Refused(error) | Answer::Undecodable(error) | Answer::Unable(error) => error,
    };
    let name = [&request.object, &request.old_object];
    let name = name
        .into_iter()
        .find_map(|object| object.pointer("/metadata/name")?.as_str());
    tracing::info!(
        event = "objectRefused",
        webhook = kind.path(),
        operation = ?request.operation,
        namespace = request.namespace,
        name,
        error,
        "refused a change of the configuration"
    );
}

/// Objects nobody reads may be what they like.
async fn passed(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    let _seat = desk.seats.acquire().await;
    match arrived(body).await.map(|body| review::read(&body)) {
        Ok(Ok(request)) => {
            let warning = "AddressPool is not read: write an IPAddressPool and an L2Advertisement";
            let answer = Answer::Allowed(vec![warning.to_owned()]);
            json(&review::write(&request.uid, &answer))
        }
        Ok(Err(error)) => json(&review::write("", &Answer::Undecodable(error))),
        Err(refusal) => refusal.into_response(),
    }
}

async fn converted(State(desk): State<Arc<Desk>>, body: Body) -> Response {
    let _seat = desk.seats.acquire().await;
    match arrived(body).await {
        Ok(body) => json(&convert::answer(&body)),
        Err(refusal) => refusal.into_response(),
    }
}

async fn arrived(body: Body) -> Result<axum::body::Bytes, (StatusCode, &'static str)> {
    match timeout(ARRIVAL, to_bytes(body, LONGEST)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err((
            StatusCode::PAYLOAD_TOO_LARGE,
            "no whole review of 7 MiB at most\n",
        )),
        Err(_) => Err((
            StatusCode::REQUEST_TIMEOUT,
            "the review did not arrive in time\n",
        )),
    }
}

fn json(value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;
