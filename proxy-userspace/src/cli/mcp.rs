//! `weir mcp`: the running weir as tools for an assistant, by the Model Context Protocol over standard input and output.
//! Each tool is one request to the admin API; who may not ask there may not ask here.

use hyper::Method;
use rmcp::handler::server::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, Implementation,
    JsonObject, ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    ToolAnnotations,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::{ServiceExt as _, transport};
use serde_json::{Value, json};

use super::place::Admin;
use super::{FAILED, Failed, client};

/// Speaks until the assistant ends it.
pub(super) fn run(admin: &Admin) -> Result<(), Failed> {
    let server = Server { admin: admin.clone() };
    client::block_on(async {
        let failed = |error: &dyn std::fmt::Display| Failed::new(FAILED, format!("MCP: {error}"));
        let serving = server.serve(transport::stdio()).await.map_err(|error| failed(&error))?;
        serving.waiting().await.map(drop).map_err(|error| failed(&error))
    })
}

struct Server {
    admin: Admin,
}

/// A tool: what it is for, what it takes, and what it asks the admin API.
struct Offered {
    name: &'static str,
    description: &'static str,
    changes: bool,
    /// Names of arguments, their JSON Schemas, and whether they have to be there.
    arguments: &'static [(&'static str, &'static str, bool)],
    ask: fn(&JsonObject) -> Question,
}

/// A request to the admin API, and what is to be made of the answer.
struct Question {
    method: Method,
    path: String,
    body: Option<Value>,
    pick: fn(Value, &JsonObject) -> Result<Value, String>,
}

const TEXT: &str = r#"{"type": "string"}"#;
const NUMBER: &str = r#"{"type": "integer", "minimum": 0}"#;
const PORT: &str = r#"{"type": "integer", "minimum": 0, "maximum": 65535}"#;
const SWITCH: &str = r#"{"type": "boolean"}"#;

const TOOLS: &[Offered] = &[
    Offered {
        name: "start_proxy",
        description: "Has the explicit proxy listen. Without `port`, where the configuration says.",
        changes: true,
        arguments: &[("port", PORT, false), ("listen_host", TEXT, false), ("system_proxy", SWITCH, false)],
        ask: |given| post("/proxy/start", given),
    },
    Offered {
        name: "stop_proxy",
        description: "Has the explicit proxy listen no more. What is open goes on to its end.",
        changes: true,
        arguments: &[],
        ask: |given| post("/proxy/stop", given),
    },
    Offered {
        name: "proxy_status",
        description: "Whether and where the proxy runs, what it has done, and what the kernel has captured.",
        changes: false,
        arguments: &[],
        ask: |_| get("/proxy/status".to_owned()),
    },
    Offered {
        name: "test_proxy",
        description: "Sends a GET request for `url` through the proxy, and tells what came back.",
        changes: true,
        arguments: &[("url", TEXT, false)],
        ask: |given| post("/proxy/test", given),
    },
    Offered {
        name: "configure_system_proxy",
        description: "Makes weir the proxy of this system.",
        changes: true,
        arguments: &[("interface", TEXT, false)],
        ask: |given| post("/proxy/configure-system", given),
    },
    Offered {
        name: "unconfigure_system_proxy",
        description: "Gives the system the proxy settings back that it had before.",
        changes: true,
        arguments: &[],
        ask: |given| post("/proxy/unconfigure-system", given),
    },
    Offered {
        name: "list_flows",
        description: "The last requests and tunnels: who, where, what, how it ended. `cgroup`: of one captured program.",
        changes: false,
        arguments: &[("count", NUMBER, false), ("cgroup", NUMBER, false)],
        ask: |given| {
            let count = given.get("count").and_then(Value::as_u64).unwrap_or(FLOWS);
            let cgroup = given.get("cgroup").and_then(Value::as_u64);
            let cgroup = cgroup.map_or_else(String::new, |cgroup| format!("&cgroup={cgroup}"));
            let pick = |flows, _: &JsonObject| Ok(json!({ "flows": flows }));
            Question { pick, ..get(format!("/flows?count={count}{cgroup}")) }
        },
    },
    Offered {
        name: "get_flow",
        description: "One of the last requests or tunnels, by its id.",
        changes: false,
        arguments: &[("id", NUMBER, true)],
        ask: |_| Question { pick: flow, ..get("/flows".to_owned()) },
    },
    Offered {
        name: "explain",
        description: "What would become of a connection (`destination` as HOST:PORT, perhaps of process `pid`), or of a \
                      request of a client of the proxy (`url`, `method`, `client`), and which rule decides.",
        changes: false,
        arguments: &[
            ("destination", TEXT, false),
            ("pid", NUMBER, false),
            ("url", TEXT, false),
            ("method", TEXT, false),
            ("client", TEXT, false),
        ],
        ask: |given| get(format!("/explain?{}", query(given))),
    },
    Offered {
        name: "cache_stats",
        description: "How full the cache is, and what it has done.",
        changes: false,
        arguments: &[],
        ask: |_| get("/admin/cache/stats".to_owned()),
    },
];

/// As many flows are listed unless the caller wants another number.
const FLOWS: u64 = 50;

fn get(path: String) -> Question {
    Question { method: Method::GET, path, body: None, pick: |answer, _| Ok(answer) }
}

fn post(path: &str, given: &JsonObject) -> Question {
    let body = Some(Value::Object(given.clone()));
    Question { method: Method::POST, path: path.to_owned(), body, pick: |answer, _| Ok(answer) }
}

fn flow(flows: Value, given: &JsonObject) -> Result<Value, String> {
    let id = given.get("id").cloned().unwrap_or_default();
    let flows = if let Value::Array(flows) = flows { flows } else { Vec::new() };
    let found = flows.into_iter().find(|flow| flow["id"] == id);
    found
        .ok_or_else(|| format!("there is no flow {id} among the last ones; list_flows tells which there are"))
}

fn query(given: &JsonObject) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let pairs = given.iter().map(|(name, value)| format!("{name}={}", client::escape(&text(value))));
    pairs.collect::<Vec<_>>().join("&")
}

impl Offered {
    fn tool(&self) -> Tool {
        let schema = |text: &str| serde_json::from_str(text).unwrap_or(Value::Bool(true));
        let properties: JsonObject =
            self.arguments.iter().map(|(name, text, _)| ((*name).to_owned(), schema(text))).collect();
        let required: Vec<Value> = self
            .arguments
            .iter()
            .filter(|(.., required)| *required)
            .map(|(name, ..)| (*name).into())
            .collect();
        let mut object = JsonObject::new();
        object.insert("type".into(), "object".into());
        object.insert("properties".into(), Value::Object(properties));
        object.insert("required".into(), required.into());
        object.insert("additionalProperties".into(), false.into());
        let hints = ToolAnnotations::new().read_only(!self.changes);
        Tool::new(self.name, self.description, object).with_annotations(hints)
    }

    /// What of the arguments is not as the tool's schema has it.
    fn fault(&self, given: &JsonObject) -> Option<String> {
        let known = |name: &str| self.arguments.iter().find(|(known, ..)| *known == name);
        let wrong = given.iter().find_map(|(name, value)| match known(name) {
            None => Some(format!("{} takes no argument `{name}`", self.name)),
            Some((_, schema, _)) => {
                let fits = match *schema {
                    TEXT => value.is_string(),
                    SWITCH => value.is_boolean(),
                    PORT => value.as_u64().is_some_and(|port| port <= u64::from(u16::MAX)),
                    _ => value.is_u64(),
                };
                (!fits).then(|| format!("{name}: {value} does not fit {schema}"))
            }
        });
        let missing = || {
            let needed = self.arguments.iter().filter(|(.., required)| *required);
            let mut missing = needed.filter(|(name, ..)| !given.contains_key(*name));
            missing.next().map(|(name, ..)| format!("{} needs `{name}`", self.name))
        };
        wrong.or_else(missing)
    }
}

impl ServerHandler for Server {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(Implementation::new("weir", env!("CARGO_PKG_VERSION")))
            .with_instructions(
                "weir is a proxy on this machine: it captures, filters, caches and records traffic.",
            )
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(TOOLS.iter().map(Offered::tool).collect()))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let unknown = || ErrorData::invalid_params(format!("there is no tool {}", request.name), None);
        let offered = TOOLS.iter().find(|offered| offered.name == request.name).ok_or_else(unknown)?;
        let given = request.arguments.unwrap_or_default();
        if let Some(fault) = offered.fault(&given) {
            return Err(ErrorData::invalid_params(fault, None));
        }
        let (question, admin) = ((offered.ask)(&given), self.admin.clone());
        // The admin API is asked as by any command, which waits.
        let asked = tokio::task::spawn_blocking(move || {
            let Question { method, path, body, pick } = question;
            let answer = match body {
                Some(body) => client::ask_patiently(&admin, &method, &path, &body),
                None => client::ask(&admin, &method, &path),
            };
            answer.map_err(|failed| failed.message).and_then(|answer| pick(answer, &given))
        });
        let told = asked.await.unwrap_or_else(|error| Err(error.to_string()));
        Ok(match told {
            Ok(answer) => CallToolResult::structured(answer),
            Err(why) => CallToolResult::error(vec![ContentBlock::text(why)]),
        }
        .into())
    }
}
