//! What has no AADSTS code: HTTP statuses of Entra and of the registry, and failures without an answer.

use super::When::{Other, Status};
use super::{Failure, Who, row};
use crate::credential::mint_error::Cause::{
    ApiServer, ArmTokenRefused, AudienceNotAllowed, EntraRefused, ExcessiveScope, ExpiredOnArrival,
    ImpersonationForbidden, InsufficientScope, InvalidClientId, InvalidTenantId, Malformed,
    NoAssertion, NoClientId, NoServiceAccount, NoTenantId, OwnServiceAccount, RegistryForbidden,
    RegistryRefused, RequestRefused, ServiceAccountChanged, Throttled, Unavailable,
};
use crate::credential::mint_error::Class::{Awaited, Propagation, Retryable, Terminal};
use crate::credential::mint_error::Hop;

/// The token service of a registry (Azure/acr, `docs/AAD-OAuth.md`).
const REGISTRY: &[Hop] = &[Hop::Exchange, Hop::Token];
const UPSTREAM: &[Hop] = &[Hop::Entra, Hop::Exchange, Hop::Token];

const INSUFFICIENT: &str =
    "the registry does not let the identity pull every repository that the object names";
const READER: &str = "assign AcrPull, or in ABAC mode (az acr show --query roleAssignmentMode), which ignores AcrPull, Container Registry Repository Reader with a condition that covers them: az role assignment create";

/// The first that fits counts.
#[rustfmt::skip]
pub(super) static STATUSES: &[Failure] = &[
    row(Status(UPSTREAM, &[429..=429]), Throttled, Retryable,
        "too many requests, and acrcred waits as long as it was asked to",
        Who::Operator, "look for other programs that use this identity or registry"),
    row(Status(UPSTREAM, &[408..=408, 500..=u16::MAX]), Unavailable, Retryable,
        "the service, or a proxy before it, failed",
        Who::Operator, "check the proxy, and check https://azure.status.microsoft"),
    row(Status(&[Hop::Entra], &[400..=499]), EntraRefused, Terminal,
        "the request was refused, with a code that acrcred does not know or with none",
        Who::Operator, "look the code up at https://login.microsoftonline.com/error, or without one, look for a proxy that answers in Entra's place"),
    row(Status(REGISTRY, &[400..=400]), RequestRefused, Terminal,
        "the registry refused the request as malformed",
        Who::Operator, "look for a proxy that changes requests"),
    row(Status(&[Hop::Exchange], &[401..=401]), RegistryRefused, Propagation,
        "the registry refused the identity",
        Who::Registry, "assign it a role, in the registry's own tenant: az role assignment create --role AcrPull (or \"Container Registry Repository Reader\" where az acr show --query roleAssignmentMode says ABAC)"),
    row(Status(&[Hop::Token], &[401..=401]), InsufficientScope, Propagation,
        INSUFFICIENT,
        Who::Registry, READER),
    row(Status(REGISTRY, &[403..=403]), RegistryForbidden, Propagation,
        "the registry's firewall, or a missing permission, forbids the request",
        Who::Registry, "let the cluster's outbound address in (az acr show --query \"[publicNetworkAccess,networkRuleSet]\", az acr network-rule add), then check the identity's role"),
];

#[rustfmt::skip]
pub(super) static OTHERS: &[Failure] = &[
    row(Other("401 of the registry, and its token was for another audience (`--registry-audience`, `AZURE_ENVIRONMENT_FILEPATH`)"), ArmTokenRefused, Propagation,
        "the registry refused a token for another audience, as one with authentication-as-arm disabled does (az acr config authentication-as-arm show)",
        Who::Operator, "unset --registry-audience, or set the cloud's own; if it is enabled, the identity needs a role: az role assignment create --role AcrPull"),
    row(Other("a token for fewer repositories than the object names"), InsufficientScope, Propagation,
        INSUFFICIENT,
        Who::Registry, READER),
    row(Other("a token for more than the object names"), ExcessiveScope, Retryable,
        "the registry granted more than was asked for, and acrcred dropped that token",
        Who::Operator, "look for a proxy or firewall between acrcred and Azure that rewrites answers"),
    row(Other("no connection, or no answer within 10 s"), Unavailable, Retryable,
        "no answer",
        Who::Operator, "check the host's name, DNS, HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE, network policies and firewalls"),
    row(Other("any other answer: a redirect, another status, more than 64 KiB, no token in it"), Malformed, Retryable,
        "the answer is not what the protocol says",
        Who::Operator, "look for a proxy or firewall between acrcred and Azure that rewrites answers"),
    row(Other("a token that has expired when it arrives"), ExpiredOnArrival, Retryable,
        "the token was already expired when it arrived",
        Who::Cluster, "set the clock of the node that acrcred runs on"),
    row(Other("the token file cannot be read, or holds no ServiceAccount token"), NoAssertion, Retryable,
        "the federated token file cannot be read or holds no ServiceAccount token",
        Who::Operator, "check AZURE_FEDERATED_TOKEN_FILE and the pod's projected volume"),
    row(Other("the ServiceAccount of `spec.identity` does not exist"), NoServiceAccount, Retryable,
        "the ServiceAccount that spec.identity names does not exist in this namespace",
        Who::Author, "create it, or correct spec.identity.serviceAccountName"),
    row(Other("the API server answers 403 to reading that ServiceAccount, or to requesting its token"), ImpersonationForbidden, Awaited,
        "the API server does not let acrcred use this ServiceAccount",
        Who::Operator, "bind the role acrcred-impersonation in this namespace, and keep its policy's audiences equal to --impersonation-audiences"),
    row(Other("the ServiceAccount of `spec.identity` is acrcred's own"), OwnServiceAccount, Awaited,
        "spec.identity names acrcred's own ServiceAccount, which objects cannot use",
        Who::Author, "correct spec.identity.serviceAccountName, or remove spec.identity"),
    row(Other("no answer of the API server about that ServiceAccount, or one that cannot be used"), ApiServer, Retryable,
        "the API server gave no token of the ServiceAccount",
        Who::Cluster, "check the API server's health and log"),
    row(Other("that ServiceAccount was re-created meanwhile"), ServiceAccountChanged, Retryable,
        "the ServiceAccount changed while its token was requested",
        Who::Nobody, "acrcred retries"),
    row(Other("no client id"), NoClientId, Awaited,
        "neither the object nor the ServiceAccount names a client id",
        Who::Author, "annotate the ServiceAccount with azure.workload.identity/client-id (az identity show --query clientId), or set spec.identity.clientId"),
    row(Other("a client id that is no GUID"), InvalidClientId, Awaited,
        "the client id is not a GUID",
        Who::Author, "correct spec.identity.clientId, or the ServiceAccount's annotation azure.workload.identity/client-id: az identity show --query clientId"),
    row(Other("no tenant"), NoTenantId, Awaited,
        "no tenant is named, and there is no default",
        Who::Author, "annotate the ServiceAccount with azure.workload.identity/tenant-id (az identity show --query tenantId), set spec.identity.tenantId, or ask the operator to set AZURE_TENANT_ID"),
    row(Other("a tenant that is neither GUID nor domain"), InvalidTenantId, Awaited,
        "the tenant is neither a GUID nor a domain",
        Who::Author, "correct spec.identity.tenantId, or the ServiceAccount's annotation azure.workload.identity/tenant-id: az identity show --query tenantId"),
    row(Other("an audience that the operator does not allow"), AudienceNotAllowed, Awaited,
        "the ServiceAccount's annotation acrcred.dev/audience names none that the operator allows",
        Who::Author, "remove it, or ask the operator to add it to --impersonation-audiences and to the policy of acrcred-impersonation"),
];
