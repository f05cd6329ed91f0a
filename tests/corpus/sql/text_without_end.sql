/* foldd
# when   = "read"
# place  = 13
# says   = 'the text that begins here never ends'
# remedy = ''
version = 1
categories = ["order"]
*/
-- @tables
create table own (n bigint);

-- @on A
insert into own select 1 where 'a = 'b';
