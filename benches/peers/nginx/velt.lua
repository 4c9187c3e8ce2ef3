-- Velt tokens for nginx: cached in a dictionary that all workers share, minted once per user.
--
-- lua-resty-http and lua-resty-lock are not among Debian's packages. So the call to Velt goes to a
-- server of this nginx, which has the timeouts, the kept-alive connections and, in production, TLS;
-- and the lock is what lua-resty-lock does: `add` to a dictionary, and short sleeps of those who wait.
local cjson = require "cjson.safe"

local tokens, mints = ngx.shared.tokens, ngx.shared.mints
local LIFE = 36 * 3600
local PATIENCE = 5

local velt = {}

local function read_answer(socket)
    local status = socket:receive("*l")
    if not status or not status:find(" 200", 1, true) then return nil end
    local length
    while true do
        local line = socket:receive("*l")
        if not line then return nil end
        if line == "" then break end
        length = tonumber(line:match("^[Cc]ontent%-[Ll]ength: *(%d+)")) or length
    end
    return length and socket:receive(length)
end

local function mint(user)
    local socket = ngx.socket.tcp()
    socket:settimeout(4000)
    if not socket:connect("unix:" .. ngx.config.prefix() .. "mint.sock") then return nil end
    local body = cjson.encode { data = { apiKey = "peers", authToken = "peers", userId = user } }
    socket:send { "POST /mint HTTP/1.1\r\nHost: velt\r\nContent-Length: ", #body, "\r\n\r\n", body }
    local answer = cjson.decode(read_answer(socket) or "")
    if not answer then
        socket:close()
        return nil
    end
    socket:setkeepalive(10000, 64)
    return answer.result and answer.result.data and answer.result.data.token
end

local function token_of(user)
    local token = tokens:get(user)
    local deadline = ngx.now() + PATIENCE
    while not token and ngx.now() < deadline do
        -- The lock expires, in case its holder does not delete it.
        if mints:add(user, true, 2 * PATIENCE) then
            token = tokens:get(user) or mint(user)
            if token then tokens:set(user, token, LIFE) end
            mints:delete(user)
            return token
        end
        ngx.sleep(0.005)
        token = tokens:get(user)
    end
    return token
end

function velt.look_up()
    local user = ngx.var.user
    if user ~= "" then ngx.ctx.token = token_of(user) end
end

function velt.inject()
    local token = ngx.ctx.token
    if token then
        ngx.header["X-Velt-Token"] = token
        ngx.header["Cache-Control"] = "private, no-store"
    end
end

function velt.answer()
    local user = ngx.var.user
    if user == "" then return ngx.exit(401) end
    local token = token_of(user)
    if not token then return ngx.exit(502) end
    local body = '{"token":"' .. token .. '"}'
    ngx.header["Content-Type"] = "application/json"
    ngx.header["Content-Length"] = #body
    ngx.header["Cache-Control"] = "private, no-store"
    ngx.print(body)
end

return velt
