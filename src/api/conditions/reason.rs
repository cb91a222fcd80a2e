//! Why a condition is what it is, in one word, and what to do about it.

/// Nothing to do.
pub const READY: &str = "Ready";
/// Nothing to do.
pub const ACCEPTED: &str = "Accepted";
/// Nothing to do.
pub const RESOLVED: &str = "Resolved";
/// Nothing to do.
pub const AVAILABLE: &str = "Available";
/// Nothing to do.
pub const ISOLATED: &str = "Isolated";
/// Nothing to do.
pub const DISCOVERED: &str = "Discovered";
/// Nothing to do.
pub const PROGRAMMED: &str = "Programmed";
/// Something else stands in the way. Look at the other conditions.
pub const NOT_ACCEPTED: &str = "NotAccepted";
/// Nothing to do: pods are being replaced or added. If it stays, look at the pods.
pub const ROLLING_OUT: &str = "RollingOut";
/// Nothing to do: the operator has not judged this generation yet. If it stays, look at the operator's log.
pub const PENDING: &str = "Pending";

/// Two objects claim the same name. Remove or rename one; until then the older one is in force.
pub const CONFLICTED: &str = "Conflicted";
/// A CEL expression of a rule does not compile. Correct it: `toolgate validate` shows the place.
pub const INVALID_EXPRESSION: &str = "InvalidExpression";
/// A condition on an argument cannot be judged. Correct it.
pub const INVALID_CONDITION: &str = "InvalidCondition";
/// A glob cannot be read. Correct it.
pub const INVALID_GLOB: &str = "InvalidGlob";
/// A JSON pointer cannot be read: it starts with `/`, and `~` is written `~0`. Correct it.
pub const INVALID_POINTER: &str = "InvalidPointer";
/// A selector selects by nothing. Name at least one label, annotation or capability.
pub const INVALID_SELECTOR: &str = "InvalidSelector";
/// A time window cannot be read. Correct it.
pub const INVALID_TIME_WINDOW: &str = "InvalidTimeWindow";
/// A time zone is not known. Write its IANA name, for example `Europe/Berlin`.
pub const INVALID_TIME_ZONE: &str = "InvalidTimeZone";
/// A rule does not say at which servers it holds, or what it is about. Add that.
pub const INCOMPLETE_RULE: &str = "IncompleteRule";
/// A subject of a role is not complete, so it means nobody. Add what the message names.
pub const INVALID_SUBJECT: &str = "InvalidSubject";
/// A key set cannot be read, so no token of this issuer is accepted. Paste the JWK set as JSON, public keys only.
pub const INVALID_KEYS: &str = "InvalidKeys";
/// `podTemplate` touches what belongs to the gateway, or is no pod template. Remove what the message names.
pub const INVALID_POD_TEMPLATE: &str = "InvalidPodTemplate";
/// `port` is one at which the gateway itself listens in the same pod. Let the server listen on another.
pub const PORT_TAKEN: &str = "PortTaken";
/// Kubernetes refuses an object that Toolgate makes for the server; the message says which and why. Correct what it
/// names.
pub const OBJECT_REFUSED: &str = "ObjectRefused";
/// Roles inherit each other in a circle and grant nothing. Remove one of the lines.
pub const INHERITANCE_CYCLE: &str = "InheritanceCycle";
/// A subject names no issuer and the namespace has several. Set `issuer`.
pub const ISSUER_REQUIRED: &str = "IssuerRequired";
/// The policy of the server is larger than what a gateway can be given; the last good one stays in force. Declare
/// fewer tools, roles or rules for it, or split the server.
pub const SNAPSHOT_TOO_LARGE: &str = "SnapshotTooLarge";
/// The policy of the server cannot be loaded; the last good one stays in force. Correct what the message names.
pub const SNAPSHOT_REFUSED: &str = "SnapshotRefused";

/// The McpServer does not exist in this namespace. Create it, or correct the name.
pub const SERVER_NOT_FOUND: &str = "ServerNotFound";
/// The McpGateway does not exist in this namespace, so no token is accepted. Create it, or correct the name.
pub const GATEWAY_NOT_FOUND: &str = "GatewayNotFound";
/// The McpRole does not exist in this namespace. Create it, or correct the name.
pub const ROLE_NOT_FOUND: &str = "RoleNotFound";
/// The McpTool does not exist in this namespace. Create it, or correct the name.
pub const TOOL_NOT_FOUND: &str = "ToolNotFound";
/// No McpGateway of this namespace lists the issuer, so the subject means nobody. Add the issuer.
pub const ISSUER_NOT_FOUND: &str = "IssuerNotFound";
/// The ConfigMap, or the key in it, does not exist in this namespace, or lacks the label `toolgate.dev/jwks: "true"`.
/// Create it, correct the name, or label it.
pub const CONFIG_MAP_NOT_FOUND: &str = "ConfigMapNotFound";
/// The Service, or its port, does not exist in this namespace. Create it, or correct the name.
pub const SERVICE_NOT_FOUND: &str = "ServiceNotFound";

/// No pod is Ready yet. If it stays, look at `Discovered`, at the pods and at the quota of the namespace.
pub const PODS_NOT_READY: &str = "PodsNotReady";
/// `replicas` is 0, so nothing runs. Scale it up.
pub const SCALED_TO_ZERO: &str = "ScaledToZero";
/// The image cannot be pulled. Correct `image`, or add `imagePullSecrets` in `podTemplate`.
pub const IMAGE_PULL_FAILED: &str = "ImagePullFailed";
/// The server's process ends again and again. Look at its log: `kubectl logs -c server`.
pub const CRASH_LOOPING: &str = "CrashLooping";
/// A container cannot be made: the message says why. Correct what it names.
pub const CONTAINER_FAILED: &str = "ContainerFailed";
/// Kubernetes refuses the pods, for a quota, a policy or a RuntimeClass that does not exist. The message says which.
pub const PODS_REFUSED: &str = "PodsRefused";
/// No node can take the pods. The message says why.
pub const UNSCHEDULABLE: &str = "Unschedulable";

/// The server's port answers on the pod's address, so callers could go around the gateway. Let the server listen on
/// localhost, or set `sandbox.isolation: NetworkPolicy`.
pub const REACHABLE_AROUND_GATEWAY: &str = "ReachableAroundGateway";
/// Nothing to do: a NetworkPolicy is the barrier, as `sandbox.isolation` asks for.
pub const BY_NETWORK_POLICY: &str = "ByNetworkPolicy";
/// The server runs where Toolgate cannot look. Admit only the gateway's pods there.
pub const NOT_IN_THE_POD: &str = "NotInThePod";
/// No gateway has looked yet. If it stays, look at `Programmed`.
pub const NOT_SEEN: &str = "NotSeen";

/// The server takes no connection, does not answer, or not with what MCP asks for: the message says what. Look at its
/// log.
pub const NO_ANSWER: &str = "NoAnswer";
/// The server's list is not complete: the message says why.
pub const INCOMPLETE: &str = "Incomplete";

/// No pod of the server is Ready, so nothing enforces anything and nothing answers. Look at `Available`.
pub const NO_GATEWAYS: &str = "NoGateways";
/// A Ready pod is not connected to the operator. It enforces what it had last. If it stays, look at the log of the
/// container `toolgate-gateway`.
pub const GATEWAY_DISCONNECTED: &str = "GatewayDisconnected";
/// A Ready pod does not enforce the newest policy yet. If it stays, look at the log of its `toolgate-gateway`.
pub const NOT_ACKNOWLEDGED: &str = "NotAcknowledged";
/// A gateway refuses the newest policy, and enforces the last good one; the message says why. If it must be updated,
/// set `gatewayUpdate: Rolling`: with `OnRollout` pods that are deleted come back with the gateway that they had.
pub const GATEWAY_REFUSED: &str = "GatewayRefused";
/// No McpServer is concerned, so there is nothing to enforce.
pub const NO_SERVERS: &str = "NoServers";

/// Ready, but no tool is declared under `registration: Declared`, so callers see none. Add McpTools, which
/// `status.undeclaredTools` helps to write.
pub const NO_TOOLS_DECLARED: &str = "NoToolsDeclared";
/// The server offers nothing that callers could use: no declared tool, no prompt, no resource.
pub const NOTHING_OFFERED: &str = "NothingOffered";
/// The server does not offer the tool. Correct `toolName`, or update the server.
pub const NOT_OFFERED: &str = "NotOffered";
/// `lifecycle` is `Disabled`, or `sunsetTime` has passed: to callers the tool does not exist.
pub const DISABLED: &str = "Disabled";
/// The server of the tool is not Ready. Look at the McpServer.
pub const SERVER_NOT_READY: &str = "ServerNotReady";

/// A warning. A rule grants every tool of every server to callers whom no subject names. Narrow it, if that is not meant.
pub const GRANTS_EVERYTHING: &str = "GrantsEverything";
/// A warning. A glob or selector matches nothing that exists. Correct it, or declare what is meant.
pub const NO_MATCH: &str = "NoMatch";
/// A warning. Agents read the server's own description of the tool, which can change unseen. Set `description`.
pub const NO_DESCRIPTION: &str = "NoDescription";
/// A warning. No issuer is listed, so only identities of `toolgate local` have the role. Add an McpGateway.
pub const NO_ISSUERS: &str = "NoIssuers";
/// A warning of the laptop. ServiceAccounts and ConfigMaps exist only in a cluster. Add identities to
/// `toolgate.local.yaml`, or ignore it.
pub const NO_CLUSTER: &str = "NoCluster";
