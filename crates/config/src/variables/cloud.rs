//! How EC2 and IMDS are reached.

/// Read here.
pub(super) mod access {
    use crate::variable::Invalid::{AsUnset, Never, Refused};
    use crate::variable::Kind::{Region, Seconds, Text, Url};

    chapter! { Cloud;
        AWS_ENDPOINT_URL_EC2: Url, default "", invalid Refused,
            "EC2's endpoint, instead of AWS's for the region.";
        AWS_EC2_ENDPOINT: Url, default "", invalid Refused,
            "The older name of `AWS_ENDPOINT_URL_EC2`, which goes before it.",
            original "is applied to IMDS instead of EC2.";
        AWS_EC2_METADATA_SERVICE_ENDPOINT: Url, default "", invalid Refused,
            "IMDS's endpoint. Not set: `http://169.254.169.254`, or `http://[fd00:ec2::254]` with `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE`.";
        AWS_REGION: Region, default "", invalid Refused,
            "The region. Not set: `AWS_DEFAULT_REGION`, else what IMDS says.";
        AWS_DEFAULT_REGION: Region, default "", invalid Refused,
            "The region where `AWS_REGION` is not set.";
        HTTP_TIMEOUT: Seconds { low: 10 }, default "10", invalid AsUnset,
            "How long one request to AWS may take.";
        VPC_CNI_VERSION: Text, default "", invalid Never,
            "Added to the name that EC2 is told, as `amazon-vpc-cni-k8s/VERSION`.";
    }
}

/// Read by `vpcnet-cloud`, with its own rules; here only so that they are documented and known.
pub(super) mod credentials {
    use crate::variable::Invalid::{Never, Refused};
    use crate::variable::Kind::{HandedOn, Secret};

    chapter! { Credentials;
        AWS_ACCESS_KEY_ID: HandedOn, default "", invalid Refused,
            "Fixed credentials, which go before all others; with `AWS_SECRET_ACCESS_KEY`, or the agent does not start.";
        AWS_SECRET_ACCESS_KEY: Secret, default "", invalid Refused,
            "Belongs to `AWS_ACCESS_KEY_ID`.";
        AWS_SESSION_TOKEN: Secret, default "", invalid Never,
            "Belongs to `AWS_ACCESS_KEY_ID` where that is temporary.";
        AWS_WEB_IDENTITY_TOKEN_FILE: HandedOn, default "", invalid Refused,
            "IAM roles for service accounts: the token that STS exchanges for the role of `AWS_ROLE_ARN`, without which the agent does \
             not start. After fixed credentials.";
        AWS_ROLE_ARN: HandedOn, default "", invalid Never,
            "The role for `AWS_WEB_IDENTITY_TOKEN_FILE`; alone without effect.";
        AWS_ROLE_SESSION_NAME: HandedOn, default "", invalid Never,
            "The name that the role's session gets.";
        AWS_ENDPOINT_URL_STS: HandedOn, default "", invalid Refused,
            "STS's endpoint, instead of AWS's for the region.";
        AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: HandedOn, default "", invalid Refused,
            "ECS: the path of the credentials on `http://169.254.170.2`. After the two above.";
        AWS_CONTAINER_CREDENTIALS_FULL_URI: HandedOn, default "", invalid Refused,
            "EKS Pod Identity: where the credentials are. https, or http on loopback and the two link-local addresses of ECS and EKS.";
        AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE: HandedOn, default "", invalid Never,
            "The token for the two above, in a file that is read each time.";
        AWS_CONTAINER_AUTHORIZATION_TOKEN: Secret, default "", invalid Never,
            "The token itself, where there is no file.";
        AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: HandedOn, default "", invalid Never,
            "`IPv6`, in any case: IMDS at its IPv6 address. Anything else: IPv4.";
        AWS_EC2_METADATA_V1_DISABLED: HandedOn, default "", invalid Never,
            "`true`, in any case: IMDSv1 is not tried where IMDSv2 gives no token.";
    }
}
