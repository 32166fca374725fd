//! Writes the root certificates of AWS's endpoints as PEM, for `trust.rs`, which
//! includes them. Mozilla's list holds them among some hundred others, which would
//! only make the functions larger.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "aws")]
    roots::write();
}

#[cfg(feature = "aws")]
mod roots {
    use std::{env, fs, path::PathBuf};

    use base64::{Engine, engine::general_purpose::STANDARD};
    use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

    /// The names of the roots, from <https://www.amazontrust.com/repository/>.
    const NAMES: [&str; 5] = [
        "Amazon Root CA 1",
        "Amazon Root CA 2",
        "Amazon Root CA 3",
        "Amazon Root CA 4",
        "Starfield Services Root Certificate Authority - G2",
    ];

    pub fn write() {
        let folder = PathBuf::from(env::var_os("OUT_DIR").expect("Cargo sets OUT_DIR"));
        let pem: String = NAMES.map(pem).concat();
        fs::write(folder.join("amazon_roots.pem"), pem).expect("OUT_DIR can be written to");
    }

    fn pem(name: &str) -> String {
        let named = |der: &[u8]| der.windows(name.len()).any(|bytes| bytes == name.as_bytes());
        let mut roots = TLS_SERVER_ROOT_CERTS.iter().filter(|root| named(root));
        let root = roots.next().unwrap_or_else(|| panic!("Mozilla's list has no {name}"));
        assert!(roots.next().is_none(), "Mozilla's list has {name} twice");
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", STANDARD.encode(root))
    }
}
