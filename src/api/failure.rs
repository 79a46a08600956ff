//! The one place that turns what went wrong into `{error, message, statusCode}`.
//!
//! `message` is shown to a person as it is. What only the operator may know stays in the log, under the request's id.

use crate::http::{HeaderValue, Refusal, Response};
use crate::runtime::Refused;
use crate::{docker, store};

/// An answer that is not a success.
#[derive(Debug)]
pub struct Failure {
    /// The status.
    pub status: u16,
    /// The stable word that programs read.
    pub code: &'static str,
    /// The sentence for a person.
    pub message: String,
    /// When to try again, in seconds.
    pub retry_after: Option<u64>,
    /// What is allowed instead, for a 405.
    pub allow: Option<String>,
    /// The cause, for the log.
    pub cause: Option<String>,
}

/// Seconds after which a client may try again what could not be done now.
const RETRY_AFTER_S: u64 = 2;

/// The same where a deployment must end first.
const QUEUE_RETRY_AFTER_S: u64 = 30;

impl Failure {
    /// A failure with a word and a sentence.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Failure {
        Failure { status, code, message: message.into(), retry_after: None, allow: None, cause: None }
    }

    /// 400: what was sent cannot be used.
    pub fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(400, "ValidationError", message)
    }

    /// 401: nobody, or nobody any more.
    #[must_use]
    pub fn unauthorized() -> Failure {
        Failure::new(401, "Unauthorized", "Please log in")
    }

    /// 404: absent, or somebody else's.
    #[must_use]
    pub fn not_found() -> Failure {
        Failure::new(404, "NotFound", "Not found")
    }

    /// 404 for a project, whether it is absent or somebody else's.
    #[must_use]
    pub fn no_project() -> Failure {
        Failure::new(404, "NotFound", "Project not found")
    }

    /// 404 for a deployment.
    #[must_use]
    pub fn no_deployment() -> Failure {
        Failure::new(404, "NotFound", "Deployment not found")
    }

    /// 503: the engine does not answer.
    #[must_use]
    pub fn docker_unavailable() -> Failure {
        Failure::new(503, "DockerUnavailable", "Docker does not answer at the moment; try again shortly")
            .retry(RETRY_AFTER_S)
    }

    /// 503: too much at once.
    #[must_use]
    pub fn busy() -> Failure {
        Failure::new(503, "Busy", "The server is busy, try again in a moment").retry(RETRY_AFTER_S)
    }

    /// 500: the cause goes to the log, a fixed sentence to the client.
    pub fn internal(cause: impl Into<String>) -> Failure {
        let failure = Failure::new(500, "InternalError", "Something went wrong on the server");
        Failure { cause: Some(cause.into()), ..failure }
    }

    /// Says when to try again.
    #[must_use]
    pub fn retry(self, seconds: u64) -> Failure {
        Failure { retry_after: Some(seconds), ..self }
    }

    /// The answer. A 5xx names the request, so that its line in the log can be found.
    #[must_use]
    pub fn response(&self, request_id: &str) -> Response {
        if let Some(cause) = &self.cause {
            log::error!("request {request_id}: {}: {cause}", self.code);
        }
        let mut body = serde_json::json!({
            "error": self.code,
            "message": self.message,
            "statusCode": self.status,
        });
        if self.status >= 500 {
            body["requestId"] = request_id.into();
        }
        let mut response = super::json(self.status, &body);
        if let Some(seconds) = self.retry_after {
            response = response.header("Retry-After", HeaderValue::from(seconds));
        }
        if let Some(Ok(allow)) = self.allow.as_deref().map(HeaderValue::new) {
            response = response.header("Allow", allow);
        }
        response
    }
}

impl From<crate::domain::Invalid> for Failure {
    fn from(invalid: crate::domain::Invalid) -> Failure {
        Failure::invalid(invalid.0)
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let code = match refusal {
            Refusal::Malformed(_) => "BadRequest",
            Refusal::MethodNotAllowed => "MethodNotAllowed",
            Refusal::Timeout => "RequestTimeout",
            Refusal::BodyTooLarge => "PayloadTooLarge",
            Refusal::TargetTooLong => "UriTooLong",
            Refusal::ExpectationFailed => "ExpectationFailed",
            Refusal::TooManyFromAddress => "TooManyConnections",
            Refusal::HeadTooLarge => "HeadersTooLarge",
            Refusal::Panicked => "InternalError",
            Refusal::Busy => "Busy",
            Refusal::VersionUnsupported => "HttpVersionNotSupported",
        };
        let failure = Failure::new(refusal.status(), code, refusal.to_string());
        match refusal {
            Refusal::Busy | Refusal::TooManyFromAddress => failure.retry(RETRY_AFTER_S),
            _ => failure,
        }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::NotFound => Failure::no_project(),
            Refused::Engine => Failure::docker_unavailable(),
            Refused::Store(error) => error.into(),
            Refused::NotUnderWay => Failure::new(
                409,
                "NotUnderWay",
                "This deployment is not under way, or it is past the point of return",
            ),
            Refused::Busy => Failure::busy(),
        }
    }
}

impl From<store::Error> for Failure {
    fn from(error: store::Error) -> Failure {
        use store::{Error, What};
        match error {
            Error::Taken(What::Email) => Failure::new(409, "EmailTaken", "This e-mail is already registered"),
            Error::Taken(What::ProjectName) => {
                Failure::new(409, "NameTaken", "You already have a project with this name")
            }
            Error::Taken(What::Container) => {
                Failure::new(409, "ContainerTaken", "A project has adopted this container already")
            }
            Error::Taken(What::Domain) => {
                Failure::new(409, "DomainTaken", "One of these domains leads to another project already")
            }
            Error::Invalid(invalid) => invalid.into(),
            Error::NotFound => Failure::no_project(),
            Error::TooMany(max) => Failure::new(
                429,
                "TooManyProjects",
                format!("You have {max} projects, which is the most one user can have"),
            ),
            Error::QueueFull => {
                let sentence = "Too many deployments are waiting; try again when one of them is done";
                Failure::new(429, "TooManyDeployments", sentence).retry(QUEUE_RETRY_AFTER_S)
            }
            Error::Full => Failure::busy(),
            Error::DiskFull => Failure::new(507, "DiskFull", "The disk is full: nothing was changed"),
            error @ (Error::NotFirst | Error::HasProjects(_) | Error::Other(_)) => {
                Failure::internal(error.to_string())
            }
        }
    }
}

impl From<docker::Error> for Failure {
    fn from(error: docker::Error) -> Failure {
        if error.is_unavailable() {
            return Failure::docker_unavailable();
        }
        Failure::internal(format!("docker: {error}"))
    }
}
