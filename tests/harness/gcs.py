"""A stand-in for Google Cloud Storage: as much of its XML API as object_store speaks, by Google's documentation, in memory, with faults on demand.

No emulator in a registry speaks that (docs/design/dependencies.md has why). What it does not know it refuses, so a request that it takes is one that was
written down here. `python3 gcs.py ACCOUNT` makes the key of a service account if there is none; with a port behind it, it serves there until it is killed.
"""

import base64
import email.utils
import hashlib
import http.server
import json
import pathlib
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import uuid
import xml.etree.ElementTree
from xml.sax.saxutils import escape

from ports import free_port

BUCKET = "cold"
MIN_PART_BYTES = 5 << 20
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"
# What stands before a SHA-256 in a signature by PKCS #1.
SHA256 = bytes.fromhex("3031300d060960864801650304020105000420")

# Faults besides a status: the connection ends before anything is done; it is done and nobody hears of it; it is done and half of the answer is heard.
DROP, LOSE, HALF = "drop", "lose", "half"
CODES = {403: "AccessDenied", 429: "SlowDown", 500: "InternalError", 503: "ServiceUnavailable"}


class Refused(Exception):
    def __init__(self, status, code, message=""):
        super().__init__(code)
        self.status, self.code, self.message = status, code, message


def make_account(path):
    """The file that Google gives out for a service account, with a new key."""
    key = subprocess.run(["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"], check=True, capture_output=True, text=True)
    account = {"type": "service_account", "private_key_id": "1", "private_key": key.stdout, "client_email": "core@plant.iam.gserviceaccount.com"}
    path.write_text(json.dumps(account))


class GoogleServer:
    """`fault(line)` is asked about every request (its method and target) for a status or one of the faults above; None: none."""

    def __init__(self, account, port=0):
        self.account = pathlib.Path(account)
        if not self.account.exists():
            make_account(self.account)
        self.issuer = json.loads(self.account.read_text())["client_email"]
        key = json.loads(self.account.read_text())["private_key"]
        modulus = subprocess.run(["openssl", "rsa", "-noout", "-modulus"], input=key, check=True, capture_output=True, text=True).stdout
        self.modulus = int(modulus.split("=")[1], 16)
        self.port = port or free_port()
        self.lock = threading.Lock()
        self.objects, self.uploads, self.generation, self.tokens = {}, {}, 1000, set()
        self.page, self.fault, self.faults, self.requests = 1000, lambda line: None, 0, []
        self.http = None

    def start(self):
        self.http = Http(("127.0.0.1", self.port), self)
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def stop(self):
        server, self.http = self.http, None
        if server is not None:
            server.shutdown()
            server.server_close()
            server.close_connections()

    def url(self, prefix):
        return f"gs://{BUCKET}/{prefix}?endpoint=http://127.0.0.1:{self.port}"

    def segments(self, prefix):
        return sorted(key for key in self.objects if key.startswith(f"{prefix}/") and key.endswith(".segment"))

    def answer(self, method, target, headers, body):
        """Status, headers and body."""
        path, _, query = target.partition("?")
        query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        if path == TOKEN_PATH and headers.get("Metadata-Flavor") == "Google":
            token = uuid.uuid4().hex
            self.tokens.add(token)
            return 200, {}, json.dumps({"access_token": token, "expires_in": 3600, "token_type": "Bearer"}).encode()
        try:
            self.authorize(headers.get("Authorization") or "")
            bucket, _, key = path[1:].partition("/")
            if urllib.parse.unquote(bucket) != BUCKET:
                raise Refused(404, "NoSuchBucket", "The specified bucket does not exist.")
            with self.lock:
                return self.carry_out(method, urllib.parse.unquote(key), query, headers, body)
        except Refused as refused:
            document = f"<Error><Code>{refused.code}</Code><Message>{refused.message}</Message></Error>"
            return refused.status, {"Content-Type": "application/xml"}, document.encode()

    def authorize(self, authorization):
        scheme, _, token = authorization.partition(" ")
        if scheme != "Bearer" or (token not in self.tokens and not self.signed(token)):
            raise Refused(401, "AuthenticationRequired", "Authentication required.")

    def signed(self, token):
        """Whether it is a token that the service account has made for itself (RFC 7515, RS256), and still good."""
        try:
            head, claims, signature = token.split(".")
            there, said = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in (head, claims))
            number = int.from_bytes(base64.urlsafe_b64decode(signature + "=="), "big")
            padded = pow(number, 65537, self.modulus).to_bytes(256, "big")
        except ValueError:
            return False
        good = b"\0\1" + b"\xff" * 202 + b"\0" + SHA256 + hashlib.sha256(f"{head}.{claims}".encode()).digest()
        scoped = said["scope"] == "https://www.googleapis.com/auth/cloud-platform"
        return padded == good and there["alg"] == "RS256" and said["iss"] == self.issuer and scoped and said["iat"] - 60 <= time.time() < said["exp"]

    def carry_out(self, method, key, query, headers, body):
        handlers = {
            ("GET", False, frozenset({"list-type"})): self.list,
            ("PUT", True, frozenset()): self.put,
            ("GET", True, frozenset()): self.get,
            ("HEAD", True, frozenset()): self.get,
            ("DELETE", True, frozenset()): self.delete,
            ("POST", True, frozenset({"uploads"})): self.begin,
            ("PUT", True, frozenset({"partNumber", "uploadId"})): self.part,
            ("POST", True, frozenset({"uploadId"})): self.complete,
            ("DELETE", True, frozenset({"uploadId"})): self.abort,
        }
        names = frozenset(query) - {"prefix", "continuation-token", "max-keys"} if not key else frozenset(query)
        handler = handlers.get((method, bool(key), names))
        if handler is None:
            raise Refused(400, "InvalidArgument", f"{method} with {sorted(query)} is not known here")
        return handler(key, query, headers, body)

    def put(self, key, _query, headers, body):
        self.match_generation(key, headers)
        return 200, self.store(key, body, hashlib.md5(body).hexdigest()), b""

    def match_generation(self, key, headers):
        wanted = headers.get("x-goog-if-generation-match")
        there = self.objects[key]["x-goog-generation"] if key in self.objects else "0"
        if wanted is not None and wanted != there:
            raise Refused(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")

    def store(self, key, body, tag):
        self.generation += 1
        described = {"ETag": f'"{tag}"', "x-goog-generation": str(self.generation), "x-goog-metageneration": "1"}
        self.objects[key] = described | {"body": body, "written": time.time()}
        return described

    def found(self, key):
        if key not in self.objects:
            raise Refused(404, "NoSuchKey", "The specified key does not exist.")
        return self.objects[key]

    def get(self, key, _query, headers, _body):
        described = dict(self.found(key))
        body, written = described.pop("body"), described.pop("written")
        described |= {"Last-Modified": email.utils.formatdate(written, usegmt=True), "Content-Type": "application/octet-stream"}
        wanted = headers.get("Range")
        if wanted is None:
            return 200, described, body
        first, last = wanted.removeprefix("bytes=").split("-")
        first, last = int(first), min(int(last), len(body) - 1)
        if first > last:
            raise Refused(416, "InvalidRange", "The requested range cannot be satisfied.")
        return 206, described | {"Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]

    def delete(self, key, _query, _headers, _body):
        self.found(key)
        del self.objects[key]
        return 204, {}, b""

    def list(self, _key, query, _headers, _body):
        prefix, after, most = query.get("prefix", ""), query.get("continuation-token", ""), min(int(query.get("max-keys", 1000)), self.page)
        after = base64.b64decode(after).decode()
        keys = sorted(key for key in self.objects if key.startswith(prefix) and key > after)
        document = f"<ListBucketResult xmlns='http://doc.s3.amazonaws.com/2006-03-01'><Name>{BUCKET}</Name><Prefix>{escape(prefix)}</Prefix>"
        for key in keys[:most]:
            found = self.objects[key]
            written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(found["written"])) + f".{int(found['written'] % 1 * 1000):03}Z"
            document += f"<Contents><Key>{escape(key)}</Key><Generation>{found['x-goog-generation']}</Generation><MetaGeneration>1</MetaGeneration>"
            document += f"<LastModified>{written}</LastModified><ETag>{found['ETag']}</ETag><Size>{len(found['body'])}</Size></Contents>"
        if len(keys) > most:
            document += f"<NextContinuationToken>{base64.b64encode(keys[most - 1].encode()).decode()}</NextContinuationToken>"
        return 200, {}, f"{document}<IsTruncated>{str(len(keys) > most).lower()}</IsTruncated></ListBucketResult>".encode()

    def begin(self, key, _query, _headers, _body):
        upload = uuid.uuid4().hex
        self.uploads[upload] = (key, {})
        named = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><UploadId>{upload}</UploadId>"
        return 200, {}, f"<InitiateMultipartUploadResult>{named}</InitiateMultipartUploadResult>".encode()

    def parts(self, key, query):
        there, parts = self.uploads.get(query["uploadId"], (None, None))
        if there != key:
            raise Refused(404, "NoSuchUpload", "The requested upload was not found.")
        return parts

    def part(self, key, query, _headers, body):
        number = int(query["partNumber"])
        if not 1 <= number <= 10_000:
            raise Refused(400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive.")
        tag = hashlib.md5(body).hexdigest()
        self.parts(key, query)[number] = (f'"{tag}"', body)
        return 200, {"ETag": f'"{tag}"'}, b""

    def complete(self, key, query, _headers, body):
        parts = self.parts(key, query)
        named = [(int(part.findtext("PartNumber")), part.findtext("ETag")) for part in xml.etree.ElementTree.fromstring(body)]
        if not named:
            raise Refused(400, "MalformedCompleteMultipartUploadRequest", "There are no parts.")
        if [number for number, _ in named] != sorted({number for number, _ in named}):
            raise Refused(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        if any(parts.get(number, (None,))[0] != tag for number, tag in named):
            raise Refused(400, "InvalidPart", "One or more of the specified parts could not be found.")
        bodies = [parts[number][1] for number, _ in named]
        if any(len(part) < MIN_PART_BYTES for part in bodies[:-1]):
            raise Refused(400, "EntityTooSmall", "A part is smaller than the minimum allowed size.")
        # Not that of the bytes, as Google says of objects that were uploaded in parts.
        described = self.store(key, b"".join(bodies), uuid.uuid4().hex)
        del self.uploads[query["uploadId"]]
        named = f"<Bucket>{BUCKET}</Bucket><Key>{escape(key)}</Key><ETag>{escape(described['ETag'])}</ETag>"
        return 200, described, f"<CompleteMultipartUploadResult>{named}</CompleteMultipartUploadResult>".encode()

    def abort(self, key, query, _headers, _body):
        self.parts(key, query)
        del self.uploads[query["uploadId"]]
        return 204, {}, b""


class Http(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, store):
        self.store, self.connections = store, set()
        super().__init__(address, Connection)

    def handle_error(self, request, client_address):
        """A client that went away is nothing to tell; everything else is a fault of this file."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)

    def close_connections(self):
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Connection(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        super().finish()

    def serve(self):
        store, line = self.server.store, f"{self.command} {self.path}"
        fault = store.fault(line)
        store.faults += fault is not None
        store.requests.append(line)
        length = int(self.headers.get("Content-Length") or 0)
        if fault == DROP:
            self.rfile.read(length // 2)
            raise ConnectionAbortedError
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError
        if fault in CODES:
            code = CODES[fault]
            status, headers, answer = fault, {}, f"<Error><Code>{code}</Code><Message>We encountered an internal error.</Message></Error>".encode()
        elif self.command in ("PUT", "POST") and "Content-Length" not in self.headers:
            status, headers, answer = 411, {}, b"<Error><Code>MissingContentLength</Code></Error>"
        else:
            status, headers, answer = store.answer(self.command, self.path, self.headers, body)
        head = [f"HTTP/1.1 {status} {self.responses[status][0]}"] + [f"{name}: {value}" for name, value in headers.items()]
        # Without a length, 204 has no body.
        head += [f"Content-Length: {len(answer)}"] if status != 204 else []
        wire = "\r\n".join(head).encode() + b"\r\n\r\n" + (answer if self.command != "HEAD" else b"")
        if fault in (LOSE, HALF):
            self.wfile.write(b"" if fault == LOSE else wire[: len(wire) // 2])
            raise ConnectionAbortedError
        self.wfile.write(wire)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = serve

    def log_message(self, *_arguments):
        pass


if __name__ == "__main__":
    server = GoogleServer(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    if len(sys.argv) > 2:
        Http(("127.0.0.1", server.port), server).serve_forever()
