"""The Lua that runs before any script: what a script may reach, and how its results and errors come back.

Scripts never hold anything of Python: what Python offers is called by Lua functions, as their upvalues, and `debug`,
which could take upvalues out, is gone. Neither may Python raise into Lua, since the exception would become a value:
it returns (True, result...) or (False, message).
"""

from __future__ import annotations

PRELUDE = r"""
local ask, lib, watch, full = ...
local type, select, unpack, tostring, error, pcall, xpcall = type, select, unpack, tostring, error, pcall, xpcall
local rawget, rawset, pairs, next, setmetatable, getmetatable = rawget, rawset, pairs, next, setmetatable, getmetatable
local format, byte, loadstring, floor = string.format, string.byte, loadstring, math.floor
local getinfo, sethook, concat, ipairs, newproxy = debug.getinfo, debug.sethook, table.concat, ipairs, newproxy
local collected = collectgarbage
local real, visible, null = _G, {}, newproxy()

-- tables that cannot be changed

local originals = setmetatable({}, {__mode = "k"})
local function refuse() error("Attempt to modify a readonly table", 2) end
local function frozen(original, missing)
    local proxy = setmetatable({}, {__index = missing or original, __newindex = refuse, __metatable = false})
    originals[proxy] = original
    return proxy
end
local function plain_pairs(t) return pairs(originals[t] or t) end
local function plain_next(t, key) return next(originals[t] or t, key) end
local function plain_rawget(t, key) return rawget(originals[t] or t, key) end
local function plain_rawset(t, key, value)
    if originals[t] then error({err = "ERR Attempt to modify a readonly table"}, 0) end
    return rawset(t, key, value)
end
local function plain_setmetatable(t, meta)
    if originals[t] then error({err = "ERR Attempt to modify a readonly table"}, 0) end
    return setmetatable(t, meta)
end

-- what Python answers

local function answered(ok, ...)
    if ok then return ... end
    error({err = (...)}, 0)
end
local function answered_in_lua(ok, ...)
    if ok then return ... end
    error((...), 3)
end
local function of_lib(name)
    return function(...) return answered_in_lua(lib(name, ...)) end
end

-- redis.*

local function call(protected, ...)
    local count = select("#", ...)
    local words = {...}
    local wrong = count == 0 and "ERR Please specify at least one argument for this redis lib call"
    for i = 1, count do
        local kind = type(words[i])
        if kind == "number" then words[i] = format("%.17g", words[i])
        elseif kind ~= "string" then wrong = "ERR Lua redis lib command arguments must be strings or integers" end
    end
    if not wrong then
        local ok, result = ask(unpack(words, 1, count))
        if ok then return result end
        wrong = result
    end
    if protected then return {err = wrong} end
    error({err = wrong}, 0)
end
local function single(field, prefix)
    return function(...)
        local value = ...
        if select("#", ...) ~= 1 or type(value) ~= "string" then
            return {err = "ERR wrong number or type of arguments"}
        end
        if prefix then
            if byte(value) == 45 then value = value:sub(2) end
            if not value:find(" ", 1, true) then value = "ERR " .. value end
        end
        return {[field] = value}
    end
end
local redis = {
    call = function(...) return call(false, ...) end,
    pcall = function(...) return call(true, ...) end,
    error_reply = single("err", true),
    status_reply = single("ok", false),
    LOG_DEBUG = 0, LOG_VERBOSE = 1, LOG_NOTICE = 2, LOG_WARNING = 3,
    REPL_NONE = 0, REPL_AOF = 1, REPL_SLAVE = 2, REPL_REPLICA = 2, REPL_ALL = 3,
    REDIS_VERSION = "7.0.15", REDIS_VERSION_NUM = 458767,
    replicate_commands = function() return true end,
    breakpoint = function() return false end,
    debug = function() end,
}
for _, name in ipairs({"log", "setresp", "set_repl", "sha1hex", "acl_check_cmd"}) do
    redis[name] = function(...) return answered(lib(name, ...)) end
end

-- libraries

local json = {null = null, _NAME = "cjson", _VERSION = "2.1.0"}
for _, name in ipairs({"encode", "decode"}) do json[name] = of_lib("json_" .. name) end
for _, name in ipairs({"decode_invalid_numbers", "decode_max_depth", "encode_invalid_numbers", "encode_keep_buffer",
                       "encode_max_depth", "encode_number_precision", "encode_sparse_array"}) do
    json[name] = of_lib("json_setting")
end
json.new = function() return json end
local bit = {}
for _, name in ipairs({"arshift", "band", "bnot", "bor", "bswap", "bxor", "lshift", "rol", "ror", "rshift", "tobit",
                       "tohex"}) do bit[name] = of_lib("bit_" .. name) end
local maths, strings = {}, {}
for name, value in pairs(math) do maths[name] = value end
for name, value in pairs(string) do strings[name] = value end
maths.random, maths.randomseed = of_lib("random"), of_lib("randomseed")
strings.dump = function() error("unable to dump given function", 2) end
string.dump = nil

-- code within code: text only, and a memory that a repetition cannot fill

local function text_only(code, name)
    if type(code) ~= "string" then error("bad argument #1 to 'loadstring' (string expected)", 2) end
    if byte(code) == 27 then return nil, "attempt to load a binary chunk" end
    return loadstring(code, name)
end
local function text_of(reader, name)
    local parts = {}
    while true do
        local part = reader()
        if part == nil or part == "" then break end
        parts[#parts + 1] = part
    end
    return text_only(concat(parts), name or "=(load)")
end
local most = 256 * 1024 * 1024
local repeated = string.rep
local function rep(text, count)
    if type(text) == "number" then text = tostring(text) end
    if type(text) == "string" and type(count) == "number" and #text * count > most then
        error("not enough memory", 0)
    end
    if type(count) == "number" and #text * count > 65536 and collected("count") > full and collected("collect") == 0
        and collected("count") > full then
        error("not enough memory", 0)
    end
    return repeated(text, count)
end
strings.rep, string.rep = rep, rep

-- the globals of scripts

for _, name in ipairs({"assert", "collectgarbage", "error", "gcinfo", "getmetatable", "ipairs", "rawequal",
                       "select", "tonumber", "tostring", "type", "unpack", "xpcall", "_VERSION"}) do
    visible[name] = real[name]
end
visible.collectgarbage = function(option) return option == "count" and collected("count") or 0 end
local function caught(ok, problem, ...)
    if not ok and type(problem) == "table" and type(rawget(problem, "err")) == "string" then
        return false, rawget(problem, "err")
    end
    return ok, problem, ...
end
visible.pcall = function(...) return caught(pcall(...)) end
visible.pairs, visible.next, visible.rawget, visible.rawset = plain_pairs, plain_next, plain_rawget, plain_rawset
visible.setmetatable, visible.loadstring, visible.load = plain_setmetatable, text_only, text_of
visible.string, visible.math, visible.table = frozen(strings), frozen(maths), frozen(table)
visible.cjson, visible.bit, visible.redis = frozen(json), frozen(bit), frozen(redis)
local function missing(t, name, level)
    error("Script attempted to access nonexistent global variable '" .. tostring(name) .. "'", level or 2)
end
visible._G = real
local names, coroutine = {}, coroutine
for name in pairs(real) do names[#names + 1] = name end
for _, name in ipairs(names) do real[name] = nil end
getmetatable("").__metatable = frozen({__index = visible.string})
setmetatable(real, {
    __index = function(t, name)
        local value = visible[name]
        if value ~= nil then return value end
        local asking = getinfo(2, "S")
        if asking and asking.what ~= "C" then missing(t, name, 3) end  -- lupa asks for debug, outside of any call
    end,
    __newindex = refuse,
    __metatable = false,
})
originals[real] = visible

-- time

local function is_script(source) return source == "@user_script" end
local stopped = false
local function step()
    if collected("count") > full then collected("collect") end
    stopped = stopped or watch(collected("count"))
    local running = stopped and getinfo(2, "S")
    if running and is_script(running.source) then
        sethook(step, "", 1)  -- so that no pcall of the script goes on
        error({err = stopped}, 0)
    end
end
local threads, create, resume = {}, coroutine.create, coroutine.resume
for name, value in pairs(coroutine) do threads[name] = value end
threads.create = function(body)
    local thread = create(body)
    sethook(thread, step, "", 1000000)
    return thread
end
local function resumed(ok, ...)
    if ok then return ... end
    error((...), 0)
end
threads.wrap = function(body)
    local thread = threads.create(body)
    return function(...) return resumed(resume(thread, ...)) end
end
visible.coroutine = frozen(threads)

-- running: errors know where they were raised, results come back flat

local function located(problem)
    local where
    for level = 2, 60 do
        local found = getinfo(level, "Sl")
        if not found then break end
        if is_script(found.source) then where = found break end
    end
    if type(problem) ~= "table" then problem = {err = "ERR " .. tostring(problem)} end
    local text = rawget(problem, "err")
    if type(text) ~= "string" then text = "ERR unknown error" end
    if where then return {err = text, source = where.source, line = where.currentline} end
    return {err = text}
end
local function flatten(value, out, depth)
    local kind = type(value)
    if kind == "string" or kind == "number" or kind == "boolean" then
        out[#out + 1] = kind
        out[#out + 1] = value
    elseif kind ~= "table" then
        out[#out + 1] = "nil"
    elseif depth > 200 then
        out[#out + 1] = "deep"
    else
        local original = originals[value] or value
        local err, ok, double = rawget(original, "err"), rawget(original, "ok"), rawget(original, "double")
        local map, set, big = rawget(original, "map"), rawget(original, "set"), rawget(original, "big_number")
        local verbatim = rawget(original, "verbatim_string")
        if type(err) == "string" then out[#out + 1] = "err" out[#out + 1] = err
        elseif type(ok) == "string" then out[#out + 1] = "ok" out[#out + 1] = ok
        elseif type(double) == "number" then out[#out + 1] = "double" out[#out + 1] = format("%.17g", double)
        elseif type(big) == "string" then out[#out + 1] = "big" out[#out + 1] = big
        elseif type(verbatim) == "table" and type(rawget(verbatim, "string")) == "string" then
            out[#out + 1] = "verbatim" out[#out + 1] = rawget(verbatim, "string")
        elseif type(map) == "table" or type(set) == "table" then
            out[#out + 1] = map and "map" or "set"
            local place, size = #out + 1, 0
            out[place] = 0
            for key, one in next, map or set do
                flatten(key, out, depth + 1)
                if map then flatten(one, out, depth + 1) end
                size = size + 1
            end
            out[place] = size
        else
            out[#out + 1] = "list"
            local place, size = #out + 1, 0
            out[place] = 0
            while rawget(original, size + 1) ~= nil do
                size = size + 1
                flatten(original[size], out, depth + 1)
            end
            out[place] = size
        end
    end
end
local function run(what, keys, values)
    visible.KEYS, visible.ARGV = keys, values
    stopped = false
    sethook(step, "", 1000000)
    local ok, result = xpcall(what, located)
    sethook()
    visible.KEYS, visible.ARGV = nil, nil
    if not ok then
        if type(result) ~= "table" then return false, "ERR " .. tostring(result) end
        return false, tostring(result.err), result.source, result.line
    end
    local out = {}
    flatten(result, out, 0)
    return true, out
end
local function compile(code, name)
    if byte(code) == 27 then return nil, "attempt to load a binary chunk" end
    return loadstring(code, name)
end
return compile, run, null
"""
