"""Certificates of an authority of the tests, made with openssl."""

import subprocess


def certificate(folder, name, ca=None, serial="1", hosts="IP:127.0.0.1,DNS:localhost"):
    """A certificate and its key; signed by itself, or by `ca` for `hosts`. Written over what is there."""
    key, request, crt = folder / f"{name}.key", folder / f"{name}.csr", folder / f"{name}.crt"
    subject = ["-subj", f"/CN={name}"]
    subprocess.run(["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", request, *subject],
                   check=True, capture_output=True)
    extensions = folder / f"{name}.ext"
    extensions.write_text("basicConstraints=critical,CA:TRUE\n" if ca is None else f"subjectAltName={hosts}\n")
    sign = ["-signkey", key] if ca is None else ["-CA", ca[0], "-CAkey", ca[1]]
    subprocess.run(["openssl", "x509", "-req", "-in", request, *sign, "-set_serial", serial, "-days", "30", "-extfile", extensions, "-out", crt],
                   check=True, capture_output=True)
    return crt, key
