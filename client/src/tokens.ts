/** Asks the app for its access token: waits for a bounded time, and names what can go wrong. */

import { StoppedError, TokenError, type UsherError } from "./errors.ts";
import { hasExpired } from "./jwt.ts";
import type { ErrorFrame } from "./wire.ts";
import type { World } from "./world.ts";

/** How long an answer may take. An auth server that is away lets supabase-js wait for 30 s. */
const ANSWER_MS_MAX = 8000;
/** A call that has not answered in time is waited for again, up to this age. Then it is given up for another one. */
const CALL_MS_MAX = 30_000;

/**
 * Gives the access token, or null for a viewer without one. `refresh` is true if the gateway says that the last token has
 * expired: then only a new one helps.
 */
export type GetToken = (options: { readonly refresh: boolean }) => string | null | Promise<string | null>;

interface Call {
  readonly since: number;
  readonly answer: Promise<string | null>;
}

/** The tokens of one client. */
export class Tokens {
  readonly #world: World;
  readonly #get: GetToken | undefined;
  /** A call that has not answered in time. It is waited for again, so that calls do not pile up behind it. */
  #late: Call | null = null;

  constructor(world: World, get: GetToken | undefined) {
    this.#world = world;
    this.#get = get;
  }

  /** The token, or null for nobody. Rejects with a `TokenError`, or with a `StoppedError` of the app's own. */
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

/** Every gateway takes a token of this size. */
const BYTES_ALWAYS_TAKEN = 8192;
/** The close code with which a gateway refuses a token. */
const REFUSED = 4501;

/** What the bearer of a token is told that the gateway has refused, if the app has no other one. */
export function refusalOfToken({ code, message = code, reason }: ErrorFrame, token: string | null): UsherError {
  const isLarge = (token?.length ?? 0) > BYTES_ALWAYS_TAKEN;
  if (code === "too_large" || reason === "too_large" || (code === "bad_request" && isLarge))
    return new StoppedError("token_too_large", message, REFUSED);
  // Without a reason, as from a proxy before the gateway, the token's own date says it.
  if (reason === "expired" || (reason === undefined && hasExpired(token))) return expired();
  return new StoppedError(reason === "issuer" ? "issuer_not_accepted" : "unauthorized", message, REFUSED);
}

/** The gateway takes no viewer without a token, or does not take this one. */
export function unauthorized(): StoppedError {
  return new StoppedError("unauthorized", "the access token is not valid, or one is needed", REFUSED);
}

/** The last token has expired, and the app has no other one so far. */
export function expired(): TokenError {
  return new TokenError("token_expired", "the access token has expired, and there is no fresh one yet");
}
