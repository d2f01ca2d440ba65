/** Asks the app for its access token, with a time limit, and turns failures into errors with a code. */

import { StoppedError, TokenError, type UsherError } from "./errors.ts";
import { hasExpired } from "./jwt.ts";
import type { ErrorFrame } from "./wire.ts";
import type { World } from "./world.ts";

/** The time limit for an answer. If the auth server is down, supabase-js waits for 30 s. */
const ANSWER_MS_MAX = 8000;
/** The greatest age of a late call that the client still waits for. After that it starts another call. */
const CALL_MS_MAX = 30_000;

/**
 * Returns the access token, or null for a viewer without one. If `refresh` is true, the gateway has refused the last
 * token, so return a new one.
 */
export type GetToken = (options: { readonly refresh: boolean }) => string | null | Promise<string | null>;

interface Call {
  readonly since: number;
  readonly answer: Promise<string | null>;
}

/** Asks for the tokens of one client. */
export class Tokens {
  readonly #world: World;
  readonly #get: GetToken | undefined;
  /** A call that did not answer in time. The next `ask` waits for it again, so that calls do not pile up. */
  #late: Call | null = null;

  constructor(world: World, get: GetToken | undefined) {
    this.#world = world;
    this.#get = get;
  }

  /**
   * Returns the token, or null for a viewer without one. Rejects with a `TokenError`, or with a `StoppedError` that the
   * app threw.
   */
  async ask(refresh = false): Promise<string | null> {
    const get = this.#get;
    if (!get) return null;
    const now = this.#world.now();
    const isWaitedFor = this.#late !== null && now - this.#late.since < CALL_MS_MAX;
    const call = (isWaitedFor && this.#late) || {
      since: now,
      answer: (async () => (await get({ refresh })) || null)(),
    };
    const { answer } = call;
    let timer: unknown;
    const timeout = new Promise<never>((_, reject) => {
      timer = this.#world.setTimer(() => {
        this.#late = call;
        answer.catch(() => {}).finally(() => this.#late === call && (this.#late = null));
        reject(new Error(`getToken has not answered for ${ANSWER_MS_MAX / 1000} s`));
      }, ANSWER_MS_MAX);
    });
    try {
      return await Promise.race([answer, timeout]);
    } catch (cause) {
      if (cause instanceof TokenError || cause instanceof StoppedError) throw cause;
      const why = cause instanceof Error ? cause.message : String(cause);
      throw new TokenError("token_unavailable", `no access token at the moment: ${why}`, { cause });
    } finally {
      this.#world.clearTimer(timer);
    }
  }
}

/** Every gateway accepts a token of this size. */
const BYTES_ALWAYS_TAKEN = 8192;
/** The close code with which a gateway refuses a token. */
const REFUSED = 4501;

/** Returns the app's error for a token that the gateway has refused. */
export function refusalOfToken({ code, message = code, reason }: ErrorFrame, token: string | null): UsherError {
  const isLarge = (token?.length ?? 0) > BYTES_ALWAYS_TAKEN;
  if (code === "too_large" || reason === "too_large" || (code === "bad_request" && isLarge))
    return new StoppedError("token_too_large", message, REFUSED);
  // A proxy before the gateway gives no reason. The token's `exp` claim then tells whether it has expired.
  if (reason === "expired" || (reason === undefined && hasExpired(token))) return expired();
  return new StoppedError(reason === "issuer" ? "issuer_not_accepted" : "unauthorized", message, REFUSED);
}

/** Returns the error for a close with 4501: the token is not valid, or the gateway requires one. */
export function unauthorized(): StoppedError {
  return new StoppedError("unauthorized", "the access token is missing or not valid: sign in again", REFUSED);
}

/** Returns the error for an expired token while the app has no new one. */
export function expired(): TokenError {
  return new TokenError("token_expired", "the access token has expired, and the app has no new one yet");
}
