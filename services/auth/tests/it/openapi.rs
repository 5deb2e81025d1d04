//! The document says which operations are for anybody.

use crate::app::App;

#[tokio::test]
async fn exactly_sign_in_enrolment_and_the_keys_are_public_and_everything_is_described() {
    let app = App::start().await;
    let document = serde_json::to_value(&*app.test.assembly().openapi).expect("json");
    let mut public = Vec::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for (method, operation) in item.as_object().expect("operations") {
            if !matches!(method.as_str(), "get" | "post" | "put" | "delete" | "patch") {
                continue;
            }
            assert!(operation["summary"].is_string(), "{method} {path}");
            for (status, response) in operation["responses"].as_object().expect("responses") {
                assert!(
                    !response["description"].as_str().unwrap_or("").is_empty(),
                    "{method} {path} {status}"
                );
            }
            if operation["tags"]
                .as_array()
                .is_some_and(|tags| tags.iter().any(|tag| tag == "public"))
            {
                public.push(format!("{method} {path}"));
            }
        }
    }
    public.sort();
    assert_eq!(
        public,
        ["get /v1/auth/jwks.json", "post /v1/auth/revoke", "post /v1/auth/token", "post /v1/enrol"]
    );
}
