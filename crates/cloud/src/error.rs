//! What goes wrong with a call, sorted by what can be done about it.

use std::fmt;
use std::time::Instant;

use crate::Ec2Action;

/// What an error asks of the caller.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ErrorClass {
    /// EC2, the network or another change in flight stood in the way: the same call may succeed later.
    Retry,
    /// Too many calls: this action waits ([`Ec2Error::retry_at`]) before any more are sent.
    Throttled,
    /// The subnet has no address or no free /28 left. Another subnet may have; this one may later.
    Exhausted,
    /// A limit of the instance, the interface or the account is reached: repeating it is of no use until something is released.
    LimitReached,
    /// EC2 will not do this: rights, parameters, or an account in trouble. Somebody has to change something.
    Refused,
    /// The thing named does not exist (any more, or not yet: EC2 is eventually consistent).
    Gone,
}

impl ErrorClass {
    /// A word for metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Throttled => "throttled",
            Self::Exhausted => "exhausted",
            Self::LimitReached => "limit-reached",
            Self::Refused => "refused",
            Self::Gone => "gone",
        }
    }
}

impl fmt::Display for ErrorClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Codes of this crate's own, for calls that got no error code from EC2.
pub(crate) mod own {
    /// The answer did not come within the deadline.
    pub(crate) const TIMEOUT: &str = "RequestTimeout";
    /// No connection could be made: name, network, TLS.
    pub(crate) const CONNECT: &str = "ConnectionFailed";
    /// The connection broke in the middle of a call.
    pub(crate) const BROKEN: &str = "ConnectionBroken";
    /// The answer is not what the action answers.
    pub(crate) const MALFORMED: &str = "MalformedResponse";
    /// There are no credentials to sign with.
    pub(crate) const CREDENTIALS: &str = "NoCredentials";
    /// The call was not sent: the action backs off.
    pub(crate) const BACKING_OFF: &str = "BackingOff";
    /// EC2 answered with an HTTP status and no error document.
    pub(crate) const HTTP: &str = "HttpStatus";
}

/// Codes known by name, by class. From the EC2 API's error code list
/// (<https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html>), the common errors of the Query API, and the SDKs' lists of
/// throttling and transient codes. Codes that are in none of these lists are sorted by their form and the HTTP status, see [`class_of`].
const CODES: &[(ErrorClass, &[&str])] = &[
    (
        ErrorClass::Throttled,
        &[
            "BandwidthLimitExceeded",
            "Client.RequestLimitExceeded",
            "EC2ThrottledException",
            "LimitExceededException",
            "PriorRequestNotComplete",
            "RequestLimitExceeded",
            "RequestThrottled",
            "RequestThrottledException",
            "SlowDown",
            "Throttling",
            "ThrottlingException",
            "ThrottledException",
            "TooManyRequestsException",
        ],
    ),
    (
        ErrorClass::Exhausted,
        &[
            "InsufficientAddressCapacity",
            "InsufficientCidrBlocks",
            "InsufficientFreeAddressesInSubnet",
            "InsufficientIpv6CidrBlocks",
        ],
    ),
    (
        ErrorClass::LimitReached,
        &[
            "AddressLimitExceeded",
            "AttachmentLimitExceeded",
            "InterfaceLimitExceeded",
            "Ipv6AddressLimitExceeded",
            "MaxNetworkInterfacesExceeded",
            "NetworkInterfaceLimitExceeded",
            "PrivateIpAddressLimitExceeded",
            "ResourceLimitExceeded",
            "SecurityGroupsPerInterfaceLimitExceeded",
            "TagLimitExceeded",
        ],
    ),
    (
        ErrorClass::Retry,
        &[
            "ConcurrentTagAccess",
            "DependencyViolation",
            "ExpiredToken",
            "ExpiredTokenException",
            "IDPCommunicationError",
            "IncorrectInstanceState",
            "IncorrectState",
            "InternalError",
            "InternalFailure",
            "InternalServerError",
            "InvalidNetworkInterface.InUse",
            "OperationAborted",
            "RequestExpired",
            "RequestInProgress",
            "RequestTimeout",
            "RequestTimeoutException",
            "RequestTimeTooSkewed",
            "ResourceNotReady",
            "ServerInternal",
            "ServiceUnavailable",
            "Unavailable",
            own::BROKEN,
            own::CONNECT,
            own::MALFORMED,
        ],
    ),
    (
        ErrorClass::Gone,
        &[
            "InvalidAttachmentID.NotFound",
            "InvalidGroup.NotFound",
            "InvalidInstanceID.NotFound",
            "InvalidNetworkInterface.NotFound",
            "InvalidNetworkInterfaceAttachmentID.NotFound",
            "InvalidNetworkInterfaceID.NotFound",
            "InvalidSecurityGroupID.NotFound",
            "InvalidSubnetID.NotFound",
            "InvalidVpcID.NotFound",
        ],
    ),
    (
        ErrorClass::Refused,
        &[
            "AccessDenied",
            "AccessDeniedException",
            "AuthFailure",
            "Blocked",
            "DryRunOperation",
            "IdempotentParameterMismatch",
            "IncompleteSignature",
            "InvalidAction",
            "InvalidCharacter",
            "InvalidClientTokenId",
            "InvalidIPAddress.InUse",
            "InvalidInput",
            "InvalidNetworkInterfaceAttachmentID.Malformed",
            "InvalidNetworkInterfaceID.Malformed",
            "InvalidPaginationToken",
            "InvalidParameter",
            "InvalidParameterCombination",
            "InvalidParameterValue",
            "InvalidQueryParameter",
            "InvalidRequest",
            "InvalidSecurity",
            "InvalidSubnet.Conflict",
            "MalformedQueryString",
            "MissingAction",
            "MissingAuthenticationToken",
            "MissingParameter",
            "NotAuthorized",
            "OperationNotPermitted",
            "OptInRequired",
            "PendingVerification",
            "SignatureDoesNotMatch",
            "UnauthorizedOperation",
            "UnknownParameter",
            "UnrecognizedClientException",
            "Unsupported",
            "UnsupportedOperation",
            "UnsupportedProtocol",
            "ValidationError",
            "VPCIdNotSpecified",
            own::CREDENTIALS,
        ],
    ),
];

/// The class of an error code.
///
/// Codes in the table have their class. One exception looks into the message, because EC2 says two things by the same code: an
/// interface still attached is refused deletion with `InvalidParameterValue` and "is currently in use", which passes.
///
/// Other codes go by form: `….NotFound` is gone, `…Throttl…` is throttled, `…LimitExceeded` and `…LimitReached` are limits; then by HTTP status: 429
/// is throttled, 5xx (and 408) may pass, the rest is refused.
pub fn class_of(code: &str, message: &str, status: u16) -> ErrorClass {
    if code == "InvalidParameterValue" && message.contains("currently in use") {
        return ErrorClass::Retry;
    }
    let known = CODES
        .iter()
        .find(|(_, codes)| codes.contains(&code))
        .map(|(class, _)| *class);
    known.unwrap_or_else(|| match status {
        _ if code.ends_with(".NotFound") => ErrorClass::Gone,
        _ if code.contains("Throttl") => ErrorClass::Throttled,
        _ if code.ends_with("LimitExceeded") || code.ends_with("LimitReached") => ErrorClass::LimitReached,
        429 => ErrorClass::Throttled,
        408 | 500.. => ErrorClass::Retry,
        _ => ErrorClass::Refused,
    })
}

/// A call to EC2 that did not give an answer to use.
#[derive(Clone, Debug, thiserror::Error)]
#[error("ec2:{action} failed: {code}: {message}{}", self.advice())]
pub struct Ec2Error {
    /// What the error asks for.
    pub class: ErrorClass,
    /// EC2's error code, or one of ours where there was none: `RequestTimeout`, `ConnectionFailed`, `ConnectionBroken`,
    /// `MalformedResponse`, `NoCredentials`, `BackingOff`, `HttpStatus`.
    pub code: String,
    /// EC2's words, or ours. Cut at 1,024 characters; never a secret.
    pub message: String,
    /// EC2's id of the request, for AWS support.
    pub request_id: Option<String>,
    /// When this action may be called again at the earliest; `None` if the class does not pass by waiting.
    pub retry_at: Option<Instant>,
    /// The action called.
    pub action: Ec2Action,
    /// The call changes something, was sent, and its answer was lost: it may have been carried out. Look (Describe) before repeating it,
    /// or repeat it with the same client token.
    pub effect_unknown: bool,
}

impl Ec2Error {
    /// Ids of `eni-…` form that the message quotes: after `InvalidNetworkInterfaceID.NotFound` these are the ones EC2 does not know (it may name
    /// several in one pair of quotes). Empty for other codes.
    pub fn missing_interfaces(&self) -> Vec<&str> {
        if !matches!(
            self.code.as_str(),
            "InvalidNetworkInterfaceID.NotFound" | "InvalidNetworkInterface.NotFound"
        ) {
            return Vec::new();
        }
        let word = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
        self.message
            .split(word)
            .filter(|id| id.len() > 4 && id.starts_with("eni-"))
            .collect()
    }

    fn advice(&self) -> &'static str {
        match (self.class, self.code.as_str()) {
            (ErrorClass::Refused, "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException") => {
                " (the role of this node, or of this pod, lacks this action in IAM)"
            }
            (ErrorClass::Refused, own::CREDENTIALS) => "",
            (ErrorClass::Exhausted, _) => " (free addresses in the subnet, or give the node another subnet)",
            (ErrorClass::Retry, _) if self.effect_unknown => " (it may have been carried out)",
            _ => "",
        }
    }
}

/// Something given to [`crate::Ec2`], [`crate::Imds`] or a credential source that cannot work.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// An endpoint is not a URL to call.
    #[error("endpoint {endpoint:?} cannot be used: {reason}; correct the variable or flag it comes from")]
    Endpoint {
        /// As given.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A region's name is none.
    #[error("{0:?} is not the name of an AWS region; IMDS or AWS_REGION gave it")]
    Region(String),
    /// TLS could not be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(String),
    /// Variables that belong together are not set together.
    #[error("{set} is set, but {missing} is not: credentials need both")]
    Incomplete {
        /// The one that is set.
        set: &'static str,
        /// The one that is not.
        missing: &'static str,
    },
    /// A container credentials endpoint that may not be sent an authorization token in the clear.
    #[error(
        "AWS_CONTAINER_CREDENTIALS_FULL_URI names {0:?}; without https only loopback and the ECS and EKS link-local addresses are allowed"
    )]
    InsecureCredentialsEndpoint(String),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn error(code: &str, message: &str) -> Ec2Error {
        Ec2Error {
            class: class_of(code, message, 400),
            code: code.to_owned(),
            message: message.to_owned(),
            request_id: None,
            retry_at: None,
            action: Ec2Action::DescribeNetworkInterfaces,
            effect_unknown: false,
        }
    }

    #[test]
    fn each_code_is_in_one_class_only() {
        let mut seen = BTreeSet::new();
        for (_, codes) in CODES {
            for code in *codes {
                assert!(seen.insert(*code), "{code} is in the table twice");
            }
        }
    }

    #[test]
    fn the_codes_the_pool_lives_by_have_their_class() {
        for (code, class) in [
            ("RequestLimitExceeded", ErrorClass::Throttled),
            ("InsufficientFreeAddressesInSubnet", ErrorClass::Exhausted),
            ("InsufficientCidrBlocks", ErrorClass::Exhausted),
            ("PrivateIpAddressLimitExceeded", ErrorClass::LimitReached),
            ("AttachmentLimitExceeded", ErrorClass::LimitReached),
            ("UnauthorizedOperation", ErrorClass::Refused),
            ("InvalidNetworkInterfaceID.NotFound", ErrorClass::Gone),
            ("InvalidNetworkInterface.InUse", ErrorClass::Retry),
            ("InternalError", ErrorClass::Retry),
        ] {
            assert_eq!(class_of(code, "", 400), class, "{code}");
        }
    }

    #[test]
    fn an_interface_still_in_use_passes_though_its_code_says_refused() {
        let message = "Network interface 'eni-0a' is currently in use.";
        assert_eq!(class_of("InvalidParameterValue", message, 400), ErrorClass::Retry);
        assert_eq!(
            class_of(
                "InvalidParameterValue",
                "Address is in the subnet's reserved range",
                400
            ),
            ErrorClass::Refused
        );
    }

    #[test]
    fn codes_nobody_listed_go_by_form_and_then_by_status() {
        for (code, status, class) in [
            ("InvalidThing.NotFound", 400, ErrorClass::Gone),
            ("ThingThrottled", 400, ErrorClass::Throttled),
            ("ThingLimitExceeded", 400, ErrorClass::LimitReached),
            ("Whatever", 429, ErrorClass::Throttled),
            ("Whatever", 503, ErrorClass::Retry),
            ("Whatever", 400, ErrorClass::Refused),
        ] {
            assert_eq!(class_of(code, "", status), class, "{code} {status}");
        }
    }

    #[test]
    fn not_found_names_the_missing_interfaces() {
        let one = error(
            "InvalidNetworkInterfaceID.NotFound",
            "The networkInterface ID 'eni-0abc' does not exist",
        );
        assert_eq!(one.missing_interfaces(), ["eni-0abc"]);
        let two = error(
            "InvalidNetworkInterfaceID.NotFound",
            "The networkInterface IDs 'eni-0abc, eni-0def' do not exist",
        );
        assert_eq!(two.missing_interfaces(), ["eni-0abc", "eni-0def"]);
        let other = error(
            "InvalidSubnetID.NotFound",
            "The subnet ID 'eni-0abc' does not exist",
        );
        assert!(other.missing_interfaces().is_empty());
    }
}
