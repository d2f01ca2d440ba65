// Listeners that act during a batch: they remove themselves, close the session or the client, or send a message.

import { expect, test } from "vitest";

import {
  admit,
  chat,
  events,
  FIRST,
  following,
  inFakeWorld,
  SESSION,
  settle,
  subscribed,
  VOTING,
  voting,
  WELCOME,
} from "./fakes.ts";

test.each(["off", "session.close", "usher.close"] as const)(
  "%s in a listener stops the delivery of the current batch",
  async (how) => {
    const { world, usher, session } = await following();
    const [seen, after]: [number[], number[]] = [[], []];
    const off = session.on("event", ({ seq }) => {
      seen.push(seq);
      if (seq !== 2) return;
      if (how === "off") off();
      else if (how === "session.close") session.close();
      else usher.close();
    });
    session.on("event", ({ seq }) => after.push(seq));
    world.socket.say(events(chat(1), chat(2), chat(3), chat(4)));
    world.socket.say(events(chat(5)));
    expect(seen).toEqual([1, 2]);
    expect(after).toEqual(how === "off" ? [1, 2, 3, 4, 5] : []);
  },
);

test("a listener that another listener removes does not receive the current change", async () => {
  const { world, session, usher } = await following();
  const heard: string[] = [];
  session.on("viewers", () => off());
  const off = session.on("viewers", () => heard.push("viewers"));
  usher.onConnection(() => offConnection());
  const offConnection = usher.onConnection(() => heard.push("connection"));
  world.socket.say({ type: "viewers", session: SESSION, count: 9 });
  world.socket.cut();
  expect(heard).toEqual([]);
});

test.each(["connecting", "open", "waiting", "stopped"] as const)(
  "a client that a listener closes in the state %s stays closed and leaves no timer or socket",
  async (status) => {
    const { world, usher } = inFakeWorld();
    const session = usher.session(SESSION);
    let closes = 0;
    const stop = usher.onConnection((state) => {
      if (state.status !== status) return;
      closes += 1;
      stop();
      usher.close();
    });
    await settle();
    world.sockets[0]?.say(WELCOME);
    world.sockets[0]?.say(subscribed());
    world.sockets[0]?.cut(status === "stopped" ? 4777 : 1006);
    await world.pass(60_000);
    // The first `connecting` happens before the test can add a listener. The client reports a second one later.
    expect(closes).toBe(1);
    expect([usher.connection.status, world.timers, world.watchers.size]).toEqual(["idle", 0, 0]);
    expect(world.sockets.every((socket) => socket.readyState !== 1)).toBe(true);
    expect(session.state.continuity.resets).toBe(0);
  },
);

test.each(["subscribed", "events", "lost", "refused"] as const)(
  "a client that a session's listener closes (%s) leaves no timer or socket",
  async (when) => {
    const { world, usher, session } = await following({ getToken: () => "token" }, { votings: [voting()] });
    const sent = session.send("hello").catch((error) => error.code);
    const voted = session.vote(VOTING, FIRST).catch((error) => error.code);
    if (when === "subscribed") {
      world.socket.cut();
      await world.pass(1000);
    }
    session.on("change", () => usher.close());
    if (when === "subscribed") await admit(world, { recovered: true });
    else if (when === "events") world.socket.say(events(chat(1)));
    else if (when === "lost") world.socket.cut(4001);
    else world.socket.say({ type: "unsubscribed", session: SESSION, reason: "banned" });
    await world.pass(60_000);
    expect([usher.connection.status, world.timers, world.watchers.size]).toEqual(["idle", 0, 0]);
    expect(world.sockets.every((socket) => socket.readyState !== 1)).toBe(true);
    expect(await Promise.all([sent, voted])).toEqual(when === "refused" ? ["banned", "closed"] : ["closed", "closed"]);
  },
);

test("a listener can close one session and keep the others, and can restart the client", async () => {
  const { world, usher, session } = await following();
  const other = usher.session("other");
  world.socket.say(subscribed({ session: "other" }));
  session.on("status", (status) => status === "waiting" && session.close());
  world.socket.cut();
  await world.pass(1000);
  world.socket.say(WELCOME);
  world.socket.say(subscribed({ session: "other", recovered: true }));
  expect(other.status).toBe("live");

  let restarted = session;
  other.on("status", () => {
    usher.close();
    restarted = usher.session(SESSION);
  });
  world.socket.cut();
  await admit(world);
  await world.pass(10_000);
  expect([restarted.status, usher.connection.status, usher.connection.failures]).toEqual(["live", "open", 0]);
  expect(world.sockets.filter((socket) => socket.readyState === 1)).toHaveLength(1);
});

test("a change that a listener causes reaches all listeners after the current change, once and in order", async () => {
  const { world, session } = await following();
  const [first, second]: [string[], string[]] = [[], []];
  const describe = () => `${session.pending.length} pending`;
  session.on("event", ({ seq }) => {
    first.push(`event ${seq}`);
    if (seq === 1) void session.send("an answer");
  });
  session.on("change", (state) =>
    second.push(`${state.chat.messages.length} messages, ${state.chat.pending.length} pending`),
  );
  world.socket.say(events(chat(1)));
  expect([first, describe()]).toEqual([["event 1"], "1 pending"]);
  expect(second).toEqual(["1 messages, 0 pending", "1 messages, 1 pending"]);
});

test("a loop that breaks in the middle of a batch receives no more events", async () => {
  const { world, session } = await following();
  const seen: number[] = [];
  const loop = (async () => {
    for await (const { seq } of session) {
      seen.push(seq);
      if (seq === 2) break;
    }
  })();
  world.socket.say(events(chat(1), chat(2), chat(3)));
  await loop;
  expect(seen).toEqual([1, 2]);
  expect(session.status).toBe("live");
});
