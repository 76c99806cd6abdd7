// The files of an artifact, from a URL or from a folder that the user picked.

/** An error whose message is for the user. */
export class ArtifactError extends Error {}

/** An artifact below a URL. */
export class UrlFolder {
  constructor(base) {
    this.base = base;
  }

  /** The file's bytes as a stream. */
  async open(path) {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.base);
    let response;
    try {
      response = await fetch(url);
    } catch (error) {
      throw new ArtifactError(`The server does not answer (${error.message}); start gpt-export serve again.`);
    }
    if (!response.ok) throw new ArtifactError(`${path} is not there (${response.status}); export the artifact again.`);
    return response.body;
  }
}

/** An artifact as `File`s by their paths in its folder. */
export class PickedFolder {
  constructor(files) {
    this.files = files;
  }

  /** The files that an `<input webkitdirectory>` gave. */
  static of(list) {
    return new PickedFolder(new Map([...list].map(file => [file.webkitRelativePath.split("/").slice(1).join("/"), file])));
  }

  async open(path) {
    const file = this.files.get(path);
    if (!file) throw new ArtifactError(`The folder has no ${path}; pick the folder of an artifact of gpt-export.`);
    return file.stream();
  }
}

/** The manifest of an artifact, checked for what the page relies on. */
export async function readManifest(folder) {
  const text = await new Response(await folder.open("manifest.json")).text();
  let manifest;
  try {
    manifest = JSON.parse(text);
  } catch (error) {
    throw new ArtifactError(`manifest.json is not JSON (${error.message}); export the artifact again.`);
  }
  if (manifest?.format !== "gpt-export" || manifest.format_version !== 1) {
    throw new ArtifactError("manifest.json is not one that this page reads; use the page of the gpt-export that wrote it.");
  }
  if (!Object.keys(manifest.variants).length) {
    throw new ArtifactError("The artifact has no ONNX graph, only TorchScript; export it with gpt-export onnx.");
  }
  return manifest;
}

/**
 * The bytes of a file that the manifest names, once size and SHA-256 are found to be its; in one buffer, made once.
 * `onBytes` is told how many have come.
 */
export async function readVerified(folder, manifest, path, onBytes = () => {}) {
  const { size_bytes: size, sha256 } = manifest.files[path] ?? {};
  if (size === undefined) throw new ArtifactError(`The manifest has no ${path}; export the artifact again.`);
  const damaged = what => new ArtifactError(`${path} ${what}; the artifact is damaged: export it again or fetch a fresh copy.`);
  const bytes = new Uint8Array(size);
  const reader = (await folder.open(path)).getReader();
  let filled = 0;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    if (filled + part.value.length > size) throw damaged(`has more than its ${size} bytes`);
    bytes.set(part.value, filled);
    filled += part.value.length;
    onBytes(filled);
  }
  if (filled < size) throw damaged(`has ${filled} bytes, not ${size}`);
  if (globalThis.crypto?.subtle && (await sha256Of(bytes)) !== sha256) throw damaged("was altered (its SHA-256 differs)");
  return bytes;
}

/** The JSON of a file that the manifest names, null where it names none. */
export async function readJson(folder, manifest, path) {
  if (!(path in manifest.files)) return null;
  return JSON.parse(new TextDecoder().decode(await readVerified(folder, manifest, path)));
}

async function sha256Of(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, byte => byte.toString(16).padStart(2, "0")).join("");
}
