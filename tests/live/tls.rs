//! TLS and credentials, on the way to the database and on the way to NATS.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::harness::{Finished, World};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use figvine_sandbox::{NatsOptions, PostgresOptions, Tls};
use nkeys::KeyPair;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose};
use serde_json::{Value, json};

/// An authority.
struct Authority {
    issuer: Issuer<'static, rcgen::KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key, as PEM, for hosts (alternative names), or for a client of this common name.
    fn issue(&self, common_name: &str, hosts: &[&str]) -> (String, String) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let mut params = CertificateParams::new(hosts).expect("names");
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        (cert.pem(), key.serialize_pem())
    }
}

/// Writes a file into the world's home; its path.
fn file(world: &World, name: &str, text: &str) -> PathBuf {
    let path = world.home.path().join(name);
    std::fs::write(&path, text).expect("writes a file");
    path
}

fn configure(world: &World, postgres: &str, nats: &str) {
    world.write_config(&format!(
        "nats:\n  url: \"{}\"\n{nats}\nhttp: {{ listen: off }}\nsources:\n  shop:\n    postgres: {{ url: \"{postgres}\", heartbeat: off }}\n    tables: [\"public.*\"]\n",
        world.nats.url()
    ));
}

/// Runs to the end, which must come soon: what a retry does not mend is not retried.
async fn ends_with(world: &World, code: i32, what: &str) -> Finished {
    let begun = Instant::now();
    let finished = world.finish(&["run", "--until", "now"]).await;
    assert_eq!(finished.code, Some(code), "{what}: {}", finished.stderr);
    assert!(begun.elapsed() < Duration::from_secs(20), "{what} took {:?}", begun.elapsed());
    let checked = world.finish(&["check"]).await;
    assert_eq!(checked.code, Some(code), "{what}: {}{}", checked.stdout, checked.stderr);
    for text in [&finished.stderr, &finished.stdout, &checked.stderr, &checked.stdout] {
        assert!(!text.contains("hush"), "{what}: a secret is told: {text}");
    }
    finished
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_is_reached_over_tls_as_the_url_says_and_refused_where_trust_is_broken() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (cert, key) = ours.issue("server", &["localhost"]);
    let options = PostgresOptions {
        tls: Some(Tls { cert, key, ca: Some(ours.pem.clone()) }),
        hba: Some(
            "host all postgres 127.0.0.1/32 trust\nhostssl all bridge 127.0.0.1/32 trust\n\
             hostssl all certified 127.0.0.1/32 cert\nhostssl all scram 127.0.0.1/32 scram-sha-256\n\
             hostnossl all clear 127.0.0.1/32 scram-sha-256\n"
                .into(),
        ),
        ..PostgresOptions::default()
    };
    let world = World::with(options, NatsOptions::default()).await;
    world
        .run_sql(
            "create role bridge superuser login; create role certified superuser login; create table t(id int primary key);
             create role scram superuser login password 'hush %/@:? ü'; create role clear superuser login password 'hush';",
        )
        .await;
    let port = world.postgres.port();
    let ca = file(&world, "ca.pem", &ours.pem);
    let wrong = file(&world, "wrong.pem", &theirs.pem);
    let empty = file(&world, "empty.pem", "nothing");
    let pair = |name: &str, (cert, key): (String, String)| {
        let (cert, key) = (file(&world, &format!("{name}.crt"), &cert), file(&world, &format!("{name}.key"), &key));
        format!("sslcert={}&sslkey={}", cert.display(), key.display())
    };
    let certified = pair("certified", ours.issue("certified", &[]));
    let other = pair("other", ours.issue("other", &[]));
    let foreign = pair("foreign", theirs.issue("certified", &[]));
    let (ca, wrong, empty) = (ca.display(), wrong.display(), empty.display());
    let secret = "hush%20%25%2F%40%3A%3F%20%C3%BC";
    for (user, host, query, code) in [
        ("bridge", "127.0.0.1", "sslmode=disable".to_owned(), 6),
        ("bridge", "127.0.0.1", "sslmode=prefer".to_owned(), 0),
        ("bridge", "127.0.0.1", "sslmode=require".to_owned(), 0),
        ("bridge", "127.0.0.1", format!("sslmode=require&sslrootcert={ca}"), 0),
        ("bridge", "127.0.0.1", format!("sslmode=require&sslrootcert={wrong}"), 6),
        ("bridge", "127.0.0.1", format!("sslmode=verify-ca&sslrootcert={ca}"), 0),
        ("bridge", "127.0.0.1", format!("sslmode=verify-ca&sslrootcert={wrong}"), 6),
        ("bridge", "127.0.0.1", format!("sslmode=verify-full&sslrootcert={ca}"), 6),
        ("bridge", "localhost", format!("sslmode=verify-full&sslrootcert={ca}"), 0),
        ("bridge", "localhost", format!("sslmode=verify-full&sslrootcert={wrong}"), 6),
        ("bridge", "localhost", format!("sslmode=verify-full&sslrootcert={empty}"), 3),
        ("certified", "localhost", format!("sslmode=verify-full&sslrootcert={ca}&{certified}"), 0),
        ("certified", "127.0.0.1", format!("sslmode=require&{certified}"), 0),
        ("certified", "localhost", format!("sslmode=verify-full&sslrootcert={ca}"), 6),
        ("certified", "localhost", format!("sslmode=verify-full&sslrootcert={ca}&{other}"), 6),
        ("certified", "localhost", format!("sslmode=verify-full&sslrootcert={ca}&{foreign}"), 6),
        (&format!("scram:{secret}"), "localhost", format!("sslmode=verify-full&sslrootcert={ca}"), 0),
        (&format!("scram:{secret}"), "127.0.0.1", "sslmode=require".to_owned(), 0),
        ("scram:hush", "127.0.0.1", "sslmode=require".to_owned(), 6),
        ("scram", "127.0.0.1", "sslmode=require".to_owned(), 6),
        ("clear:hush", "127.0.0.1", "sslmode=disable".to_owned(), 0),
        ("clear:hushed", "127.0.0.1", "sslmode=disable".to_owned(), 6),
        ("nobody", "127.0.0.1", "sslmode=require".to_owned(), 6),
    ] {
        configure(&world, &format!("postgres://{user}@{host}:{port}/postgres?{query}"), "");
        ends_with(&world, code, &format!("{user} {host} {query}")).await;
    }
    configure(&world, &format!("postgres://bridge@127.0.0.1:{port}/nowhere?sslmode=require"), "");
    ends_with(&world, 6, "a database that is not there").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_tls_is_refused_where_tls_is_demanded() {
    let world = World::start().await;
    world.run_sql("create table t(id int primary key)").await;
    let url = world.postgres.url("postgres");
    configure(&world, &format!("{url}?sslmode=prefer"), "");
    ends_with(&world, 0, "prefer").await;
    configure(&world, &format!("{url}?sslmode=require"), "");
    let refused = ends_with(&world, 6, "require").await;
    assert!(refused.stderr.contains("does not speak TLS"), "{}", refused.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_is_reached_over_tls_and_shown_a_certificate_where_it_asks_for_one() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (cert, key) = ours.issue("server", &["127.0.0.1"]);
    for mutual in [false, true] {
        let tls = Tls { cert: cert.clone(), key: key.clone(), ca: mutual.then(|| ours.pem.clone()) };
        let nats = NatsOptions { tls: Some(tls), ..NatsOptions::default() };
        let world = World::with(PostgresOptions::default(), nats).await;
        world.run_sql("create table t(id int primary key)").await;
        let url = world.postgres.url("postgres");
        let ca = file(&world, "ca.pem", &ours.pem);
        let wrong = file(&world, "wrong.pem", &theirs.pem);
        let shown = |name: &str, (cert, key): (String, String)| {
            let (cert, key) = (file(&world, &format!("{name}.crt"), &cert), file(&world, &format!("{name}.key"), &key));
            format!(", cert: \"{}\", key: \"{}\"", cert.display(), key.display())
        };
        let (ca, wrong) = (ca.display(), wrong.display());
        let known = shown("known", ours.issue("client", &[]));
        let unknown = shown("unknown", theirs.issue("client", &[]));
        let when_mutual = |code| if mutual { code } else { 0 };
        for (tls, code) in [
            (format!("  tls: {{ ca: \"{ca}\"{known} }}"), 0),
            (format!("  tls: {{ ca: \"{ca}\" }}"), when_mutual(7)),
            (format!("  tls: {{ ca: \"{ca}\"{unknown} }}"), when_mutual(7)),
            (format!("  tls: {{ ca: \"{wrong}\"{known} }}"), 7),
            (String::new(), 7),
        ] {
            configure(&world, &url, &tls);
            ends_with(&world, code, &format!("mutual {mutual} {tls}")).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_believes_passwords_tokens_and_nkeys_and_refuses_wrong_ones() {
    let (known, stranger) = (KeyPair::new_user(), KeyPair::new_user());
    let seed = |pair: &KeyPair| pair.seed().expect("a seed");
    for (authorization, tried) in [
        (
            "user: figvine, password: \"hush pass\"".to_owned(),
            vec![
                ("  auth: { user: figvine, password: \"hush pass\" }".to_owned(), 0),
                ("  auth: { user: figvine, password: \"hush no\" }".to_owned(), 7),
                (String::new(), 7),
            ],
        ),
        (
            "token: \"hush token\"".to_owned(),
            vec![("  auth: { token: \"hush token\" }".to_owned(), 0), ("  auth: { token: \"hush no\" }".to_owned(), 7)],
        ),
        (
            format!("users: [{{ nkey: {} }}]", known.public_key()),
            vec![
                ("  auth: { nkey: known }".to_owned(), 0),
                ("  auth: { nkey: stranger }".to_owned(), 7),
                ("  auth: { nkey: nowhere }".to_owned(), 7),
                (String::new(), 7),
            ],
        ),
    ] {
        let nats =
            NatsOptions { config_extra: format!("authorization {{ {authorization} }}\n"), ..NatsOptions::default() };
        let world = World::with(PostgresOptions::default(), nats).await;
        world.run_sql("create table t(id int primary key)").await;
        for (name, pair) in [("known", &known), ("stranger", &stranger)] {
            file(&world, name, &format!("{}\n", seed(pair)));
        }
        let home = world.home.path().display().to_string();
        for (auth, code) in tried {
            let auth = auth.replace("nkey: ", &format!("nkey: {home}/"));
            configure(&world, &world.postgres.url("postgres"), &auth);
            ends_with(&world, code, &auth).await;
        }
    }
}

/// A JWT as nats-server reads it: claims of version 2, signed by the issuer's nkey.
fn jwt(issuer: &KeyPair, subject: &KeyPair, name: &str, nats: Value) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = part(json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let claims = part(json!({
        "jti": name, "iat": 1_700_000_000, "iss": issuer.public_key(), "name": name, "sub": subject.public_key(), "nats": nats,
    }));
    let signed = format!("{header}.{claims}");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes()).expect("a signature"));
    format!("{signed}.{signature}")
}

#[tokio::test(flavor = "multi_thread")]
async fn nats_believes_credentials_of_its_operator_s_accounts_and_no_others() {
    let (operator, account, system) = (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let (user, stranger) = (KeyPair::new_user(), KeyPair::new_account());
    let limits = |storage: i64| {
        json!({"subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true, "conn": -1,
               "leaf": -1, "mem_storage": storage, "disk_storage": storage, "streams": storage, "consumer": storage})
    };
    let of_account = |pair: &KeyPair, name: &str, storage| {
        jwt(&operator, pair, name, json!({"limits": limits(storage), "type": "account", "version": 2}))
    };
    let of_user = |issuer: &KeyPair| {
        let claims = json!({"pub": {}, "sub": {}, "subs": -1, "data": -1, "payload": -1, "type": "user", "version": 2});
        jwt(issuer, &user, "figvine", claims)
    };
    let config_extra = format!(
        "operator: {}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n  {}: {}\n  {}: {}\n}}\n",
        jwt(
            &operator,
            &operator,
            "op",
            json!({"system_account": system.public_key(), "type": "operator", "version": 2})
        ),
        system.public_key(),
        account.public_key(),
        of_account(&account, "shop", -1),
        system.public_key(),
        of_account(&system, "sys", 0),
    );
    let nats = NatsOptions { config_extra, ..NatsOptions::default() };
    let world = World::with(PostgresOptions::default(), nats).await;
    world.run_sql("create table t(id int primary key)").await;
    let creds = |name: &str, jwt: &str| {
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            user.seed().expect("a seed")
        );
        file(&world, name, &text).display().to_string()
    };
    let good = creds("good.creds", &of_user(&account));
    let forged = creds("forged.creds", &of_user(&stranger));
    let jwt_file = file(&world, "user.jwt", &of_user(&account)).display().to_string();
    let seed_file = file(&world, "user.seed", &user.seed().expect("a seed")).display().to_string();
    let other_seed = file(&world, "other.seed", &KeyPair::new_user().seed().expect("a seed")).display().to_string();
    for (auth, code) in [
        (format!("  auth: {{ creds: \"{good}\" }}"), 0),
        (format!("  auth: {{ jwt: \"{jwt_file}\", seed: \"{seed_file}\" }}"), 0),
        (format!("  auth: {{ jwt: \"{jwt_file}\", seed: \"{other_seed}\" }}"), 7),
        (format!("  auth: {{ creds: \"{forged}\" }}"), 7),
        (format!("  auth: {{ creds: \"{jwt_file}\" }}"), 7),
        (String::new(), 7),
    ] {
        configure(&world, &world.postgres.url("postgres"), &auth);
        ends_with(&world, code, &auth).await;
    }
}
