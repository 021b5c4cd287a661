// The cameras of this device: opening one, listing them, and why it may not work.

const OPEN_LIMIT_MS = 60_000;

/** A camera that cannot be used; `kind` names a text in words.js. */
export class CameraProblem extends Error {
  constructor(kind) {
    super(kind);
    this.kind = kind;
  }
}

const KINDS = {
  NotAllowedError: "refused",
  SecurityError: "refused",
  NotFoundError: "missing",
  OverconstrainedError: "missing",
  NotReadableError: "busy",
  AbortError: "busy",
};

/**
 * Open a camera: the named one, or one that faces the way that is wished for.
 * @param {{deviceId?: string, facing?: "user" | "environment"}} wish
 * @returns {Promise<MediaStream>} rejects with CameraProblem
 */
export async function openCamera({ deviceId = "", facing = "user" }) {
  if (!isSecureContext) {
    throw new CameraProblem("insecure");
  }
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new CameraProblem("unsupported");
  }
  const which = deviceId ? { deviceId: { exact: deviceId } } : { facingMode: facing };
  const video = { width: { ideal: 1280 }, height: { ideal: 720 }, ...which };
  const opening = navigator.mediaDevices.getUserMedia({ video, audio: false });
  try {
    return await withLimit(opening, OPEN_LIMIT_MS);
  } catch (error) {
    // Should it open after all, nobody waits for it any more.
    opening.then(stopCamera, () => {});
    throw await explained(error, deviceId);
  }
}

async function explained(error, deviceId) {
  if (error instanceof CameraProblem) {
    return error;
  }
  const kind = KINDS[error.name] ?? "broken";
  if (kind === "missing" && deviceId) {
    return new CameraProblem("gone");
  }
  if (kind === "refused" && (await isBlocked())) {
    return new CameraProblem("blocked");
  }
  return new CameraProblem(kind);
}

/** Whether the browser will not even ask: it remembers a "no". */
async function isBlocked() {
  try {
    const { state } = await navigator.permissions.query({ name: "camera" });
    return state === "denied";
  } catch {
    // Not every browser can be asked: then it may have been a "no" just now.
    return false;
  }
}

function withLimit(promise, limit_ms) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new CameraProblem("silent")), limit_ms);
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** The cameras, with their names; browsers tell those once one was allowed. */
export async function listCameras() {
  const devices = await navigator.mediaDevices.enumerateDevices();
  return devices
    .filter((device) => device.kind === "videoinput")
    .map((device, index) => ({
      deviceId: device.deviceId,
      name: device.label || `Camera ${index + 1}`,
    }));
}

export function stopCamera(stream) {
  for (const track of stream?.getTracks() ?? []) {
    track.stop();
  }
}

/** Which camera a stream comes from, and whether it shows who sits before it. */
export function describe(stream) {
  const { deviceId = "", facingMode = "" } = stream.getVideoTracks()[0].getSettings();
  return { deviceId, isFront: facingMode !== "environment" };
}
