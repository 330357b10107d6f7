//! Makes the stubs of the services from the `.proto` files: ours for the data plane (below), tonic's
//! for the admin interface. The messages themselves live in `ff2-proto`.

use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

use prost_build::{Service, ServiceGenerator};

/// Services of the data plane with their number on the wire. Append only.
const SERVICES: [(&str, u16); 6] =
    [("Cluster", 1), ("Namespace", 2), ("Storage", 3), ("Raft", 4), ("Agents", 5), ("Ranks", 6)];
/// Those that people's tools call, over gRPC.
const ADMIN: [&str; 2] = ["Admin", "Scheduler"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=proto/proto");
    let files =
        ["common", "cluster", "namespace", "storage", "raft", "admin", "sched", "agents", "ranks"]
            .map(|name| format!("proto/proto/ff2/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto/proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);

    let mut data_plane = descriptors.clone();
    for file in &mut data_plane.file {
        file.service.retain(|service| SERVICES.iter().any(|(name, _)| *name == service.name()));
    }
    let folder = out.join("rpc");
    fs::create_dir_all(&folder)?;
    prost_build::Config::new()
        .out_dir(&folder)
        .extern_path(".ff2.v1", "::ff2_proto::pb")
        .service_generator(Box::new(Stubs::default()))
        .compile_fds(data_plane)?;

    let mut admin = descriptors;
    for file in &mut admin.file {
        file.service.retain(|service| ADMIN.contains(&service.name()));
    }
    let folder = out.join("admin");
    fs::create_dir_all(&folder)?;
    tonic_prost_build::configure()
        .out_dir(&folder)
        .extern_path(".ff2.v1", "::ff2_proto::pb")
        .compile_fds(admin)?;
    Ok(())
}

/// Writes, for each service: its methods, the trait that a server implements, the dispatcher
/// `XServer<T>` and the client `XClient`.
#[derive(Default)]
struct Stubs {
    /// `Method` constants in order of services and methods, for the table of all methods.
    methods: Vec<String>,
}

impl ServiceGenerator for Stubs {
    fn generate(&mut self, service: Service, out: &mut String) {
        let number = SERVICES.iter().find(|(name, _)| *name == service.proto_name);
        let number = number.expect("other services were taken out of the descriptors").1;
        let text = self
            .constants(&service, number)
            .and_then(|()| server_trait(&service, out))
            .and_then(|()| server(&service, number, out))
            .and_then(|()| client(&service, out));
        text.expect("writing to a string cannot fail");
    }

    fn finalize_package(&mut self, _package: &str, out: &mut String) {
        out.push_str("/// Every method of the data plane, by its number.\n");
        out.push_str("pub mod method {\n    use crate::rpc::Method;\n");
        let mut all = String::new();
        for (index, line) in self.methods.iter().enumerate() {
            let line = line.replace("INDEX", &index.to_string());
            out.push_str(&line);
            let name = line.split([' ', ':']).find(|w| w.contains('_') && !w.contains('"'));
            all.push_str(&format!("        {},\n", name.expect("a constant has a name")));
        }
        out.push_str("    /// In order of [`Method::index`].\n");
        out.push_str("    pub static ALL: &[Method] = &[\n");
        out.push_str(&all);
        out.push_str("    ];\n}\n");
    }
}

impl Stubs {
    fn constants(&mut self, service: &Service, number: u16) -> std::fmt::Result {
        for (place, method) in service.methods.iter().enumerate() {
            let mut line = String::new();
            writeln!(
                line,
                "    pub const {}: Method = Method {{ number: {:#06x}, name: \"{}.{}\", index: INDEX }};",
                constant(service, &method.name),
                number << 8 | u16::try_from(place).expect("few methods"),
                service.proto_name,
                method.proto_name,
            )?;
            self.methods.push(line);
        }
        Ok(())
    }
}

fn constant(service: &Service, method: &str) -> String {
    format!("{}_{}", service.proto_name.to_uppercase(), method.to_uppercase())
}

fn server_trait(service: &Service, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    writeln!(out, "/// What a server of the service `{}` does.", service.proto_name)?;
    writeln!(out, "pub trait {name}: Send + Sync + 'static {{")?;
    for method in &service.methods {
        for line in &method.comments.leading {
            writeln!(out, "    ///{line}")?;
        }
        writeln!(
            out,
            "    fn {}(&self, cx: crate::rpc::Context, request: {}, bulk: crate::buf::Buf) \
             -> impl Future<Output = Result<crate::rpc::Answer<{}>, ::ff2_proto::Status>> + Send;",
            method.name, method.input_type, method.output_type
        )?;
    }
    writeln!(out, "}}\n")
}

fn server(service: &Service, number: u16, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    writeln!(
        out,
        "/// Decodes calls of the service `{proto}` for an implementation of it.\n\
         pub struct {name}Server<T>(std::sync::Arc<T>);\n\n\
         impl<T> std::fmt::Debug for {name}Server<T> {{\n\
         \x20   fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n\
         \x20       f.write_str(\"{name}Server\")\n    }}\n}}\n\n\
         impl<T: {name}> {name}Server<T> {{\n\
         \x20   pub fn new(service: std::sync::Arc<T>) -> Self {{\n        Self(service)\n    }}\n}}\n\n\
         impl<T: {name}> crate::rpc::Service for {name}Server<T> {{\n\
         \x20   fn number(&self) -> u8 {{\n        {number}\n    }}\n\n\
         \x20   fn call(&self, request: crate::rpc::Request) -> crate::rpc::ReplyFuture {{\n\
         \x20       let service = self.0.clone();\n\
         \x20       match request.method & 0xff {{",
        proto = service.proto_name
    )?;
    for (place, method) in service.methods.iter().enumerate() {
        writeln!(
            out,
            "            {place} => Box::pin(async move {{\n\
             \x20               let message = crate::rpc::decode(request.message)?;\n\
             \x20               service.{}(request.cx, message, request.bulk).await\
             .map(crate::rpc::Reply::from)\n            }}),",
            method.name
        )?;
    }
    writeln!(
        out,
        "            _ => Box::pin(async move {{ Err(crate::rpc::no_such_method(request.method)) }}),\n\
         \x20       }}\n    }}\n}}\n"
    )
}

fn client(service: &Service, out: &mut String) -> std::fmt::Result {
    let name = &service.name;
    writeln!(
        out,
        "/// Calls the service `{proto}` of one peer.\n\
         #[derive(Clone, Debug)]\n\
         pub struct {name}Client(crate::rpc::Channel);\n\n\
         impl {name}Client {{\n\
         \x20   pub fn new(channel: crate::rpc::Channel) -> Self {{\n        Self(channel)\n    }}\n",
        proto = service.proto_name
    )?;
    for method in &service.methods {
        for line in &method.comments.leading {
            writeln!(out, "    ///{line}")?;
        }
        writeln!(
            out,
            "    pub async fn {}(&self, request: &{}, call: crate::rpc::Call) \
             -> Result<({}, crate::buf::Buf), ::ff2_proto::Status> {{\n\
             \x20       self.0.call(method::{}, request, call).await\n    }}\n",
            method.name,
            method.input_type,
            method.output_type,
            constant(service, &method.name)
        )?;
    }
    writeln!(out, "}}\n")
}
