//! Who may read the metrics over HTTPS: whom the API server knows (TokenReview) and lets read `/metrics`
//! (SubjectAccessReview), as `MetalLB` 0.16 asks it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use k8s_openapi::api::{
    authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
    authorization::v1::{NonResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

/// How long a permission counts without asking again.
const PERMITTED: Duration = Duration::from_mins(1);
/// How long a refusal does. Short, for a role granted meanwhile.
const REFUSED: Duration = Duration::from_secs(10);
/// Answers kept at once.
const KEPT: usize = 64;
/// Questions to the API server at once, whoever asks us.
const QUESTIONS: usize = 4;
/// How long an answer may take, the wait for a turn included.
const PATIENCE: Duration = Duration::from_secs(10);
/// Tokens of service accounts are about 1 KiB.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Lets requests through that carry a bearer token the API server vouches for.
pub struct Gate {
    client: Client,
    turns: Semaphore,
    answers: Mutex<HashMap<Question, (Answer, Instant)>>,
    told: AtomicBool,
}

/// Token, verb and path.
type Question = (String, String, String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Answer {
    Allowed,
    /// 401.
    Unknown,
    /// 403, and whom.
    Denied(String),
}

/// Why there is no answer.
enum Mute {
    /// Our own role does not let us ask.
    MayNotAsk(&'static str),
    /// The API server does not answer, or not what it should.
    Unreachable(String),
}

impl Gate {
    /// A gate that asks through `client`, whose role needs `create` on `tokenreviews.authentication.k8s.io` and
    /// `subjectaccessreviews.authorization.k8s.io`.
    pub fn new(client: Client) -> Self {
        Self {
            client,
            turns: Semaphore::new(QUESTIONS),
            answers: Mutex::default(),
            told: AtomicBool::new(false),
        }
    }

    /// `router` behind this gate: 401 to those who are not known, 403 to those who may not, 503 where the API server
    /// does not say.
    pub fn protect(self: Arc<Self>, router: Router) -> Router {
        router.layer(middleware::from_fn_with_state(self, pass))
    }

    async fn ask(&self, question: &Question) -> Result<Answer, Mute> {
        if let Some(answer) = self.kept(question) {
            return Ok(answer);
        }
        let asking = async {
            let _turn = self.turns.acquire().await;
            // Somebody may have asked the same while this one waited.
            if let Some(answer) = self.kept(question) {
                return Ok(answer);
            }
            let answer = self.review(question).await?;
            self.keep(question, &answer);
            Ok(answer)
        };
        let late = |_| Mute::Unreachable(format!("no answer within {} s", PATIENCE.as_secs()));
        timeout(PATIENCE, asking).await.map_err(late)?
    }

    async fn review(&self, (token, verb, path): &Question) -> Result<Answer, Mute> {
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: Some(token.clone()),
                audiences: None,
            },
            ..TokenReview::default()
        };
        let status = Api::<TokenReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Mute::from(error, "tokenreviews.authentication.k8s.io"))?
            .status
            .unwrap_or_default();
        let user = match status.user {
            Some(user) if status.authenticated == Some(true) => user,
            _ => return Ok(Answer::Unknown),
        };
        let name = user.username.clone().unwrap_or_default();
        let review = access_review(user, verb, path);
        let allowed = Api::<SubjectAccessReview>::all(self.client.clone())
            .create(&PostParams::default(), &review)
            .await
            .map_err(|error| Mute::from(error, "subjectaccessreviews.authorization.k8s.io"))?
            .status
            .is_some_and(|status| status.allowed);
        Ok(if allowed {
            Answer::Allowed
        } else {
            Answer::Denied(name)
        })
    }

    fn kept(&self, question: &Question) -> Option<Answer> {
        let answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let (answer, until) = answers.get(question)?;
        (*until > Instant::now()).then(|| answer.clone())
    }

    fn keep(&self, question: &Question, answer: &Answer) {
        let now = Instant::now();
        let lasts = match answer {
            Answer::Allowed => PERMITTED,
            _ => REFUSED,
        };
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers.retain(|_, (_, until)| *until > now);
        // Who tries many tokens must not push out those that are good.
        if answers.len() < KEPT || *answer == Answer::Allowed {
            answers.insert(question.clone(), (answer.clone(), now + lasts));
        }
    }

    /// Says once that nobody will ever be let in, and what would change that.
    fn tell(&self, resource: &str) {
        if !self.told.swap(true, Ordering::Relaxed) {
            tracing::error!(
                op = "authenticateMetrics",
                resource,
                "metrics cannot be read over HTTPS: our service account may not create {resource}; grant it create on \
                 tokenreviews.authentication.k8s.io and subjectaccessreviews.authorization.k8s.io (MetalLB's \
                 -prometheus manifests and its chart do), or serve plain HTTP with --metrics-scheme=http"
            );
        }
    }
}

impl Mute {
    fn from(error: kube::Error, resource: &'static str) -> Self {
        match error {
            kube::Error::Api(status) if matches!(status.code, 401 | 403) => {
                Self::MayNotAsk(resource)
            }
            error => Self::Unreachable(error.to_string()),
        }
    }
}

fn access_review(user: UserInfo, verb: &str, path: &str) -> SubjectAccessReview {
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: user.username,
            uid: user.uid,
            groups: user.groups,
            extra: user.extra,
            non_resource_attributes: Some(NonResourceAttributes {
                path: Some(path.to_owned()),
                verb: Some(verb.to_owned()),
            }),
            resource_attributes: None,
        },
        ..SubjectAccessReview::default()
    }
}

/// The token of `Authorization: Bearer`, if there is one that can be one.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    let token = token.trim();
    let usable = !token.is_empty() && token.len() <= LONGEST_TOKEN;
    (scheme.eq_ignore_ascii_case("bearer") && usable).then_some(token)
}

async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let unknown = || {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        (StatusCode::UNAUTHORIZED, challenge, "Unauthorized\n").into_response()
    };
    let Some(token) = bearer(request.headers()) else {
        return unknown();
    };
    let question = (
        token.to_owned(),
        request.method().as_str().to_ascii_lowercase(),
        request.uri().path().to_owned(),
    );
    match gate.ask(&question).await {
        Ok(Answer::Allowed) => next.run(request).await,
        Ok(Answer::Unknown) => unknown(),
        Ok(Answer::Denied(user)) => {
            let (_, verb, path) = question;
            (
                StatusCode::FORBIDDEN,
                format!("{user} may not {verb} {path}\n"),
            )
                .into_response()
        }
        Err(Mute::MayNotAsk(resource)) => {
            gate.tell(resource);
            let status = if resource.starts_with("tokenreviews") {
                StatusCode::UNAUTHORIZED
            } else {
                StatusCode::FORBIDDEN
            };
            let text = format!("this daemon may not create {resource}; its log says more\n");
            (status, text).into_response()
        }
        Err(Mute::Unreachable(error)) => {
            tracing::debug!(
                op = "authenticateMetrics",
                error,
                "the API server does not say who asks"
            );
            let text = "the API server does not say who you are\n";
            (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
